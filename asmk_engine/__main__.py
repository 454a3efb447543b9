"""`python -m asmk_engine` is the program `asmk-engine`."""

from asmk_engine.cli import main

if __name__ == "__main__":
    main()
