"""Run the command line: `python -m asmk_engine` is the same as `asmk-engine`."""

from asmk_engine.cli import main

if __name__ == "__main__":
    main()
