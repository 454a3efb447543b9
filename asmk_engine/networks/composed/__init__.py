"""Networks of global descriptors that are composed of a backbone and a head: one small file for each head.

    pixels ─early layers─▶ map 4 ─head.middle─▶ map 4 ─late layers─▶ map 5 ─head(map 4, map 5)─▶ vector ─L2─▶ descriptor

`table` names them all; `network` joins a head and a backbone; `checkpoints` reads and writes their files.
"""
