"""The geometry of an image read from the rows of bytes in which it is stored."""

import numpy as np

from asmk_engine.kernels import kernel

_ROWS = "Array(uint8, 2, 'C', readonly=True)"
_TABLE = "Array(float32, 1, 'C', readonly=True)"


@kernel(f"boolean({_ROWS}, {_TABLE}, {_TABLE}, float64, float64, uint32[::1], uint64[:, ::1], float32[:, ::1])")
def unpack(rows, scales, angles, across, down, words, codes, places):
    """Read rows, little-endian: the code, x and y of two bytes, the word, the scale, and the angle if there is room.

    rows          [n, B] uint8
    scales        [256] float32
    angles        [256] float32, or empty if the rows have none
    across, down  pixels of a step of x and y
    words         [n] uint32, out
    codes         [n, W] uint64, out
    places        [n, 4] float32, out: x, y, scale and angle, which stays as it is if the rows have none
    returns       whether the words increase
    """
    count, width = codes.shape
    has_angles = angles.shape[0] > 0
    word_bytes = rows.shape[1] - 8 * width - 5 - has_angles
    increasing = True
    for row in range(count):
        for column in range(width):
            code = np.uint64(0)
            for byte in range(8):
                code |= np.uint64(rows[row, 8 * column + byte]) << np.uint64(8 * byte)
            codes[row, column] = code
        at = 8 * width
        x = np.int64(rows[row, at]) | np.int64(rows[row, at + 1]) << 8
        y = np.int64(rows[row, at + 2]) | np.int64(rows[row, at + 3]) << 8
        places[row, 0], places[row, 1] = np.float32(x * across - 0.5), np.float32(y * down - 0.5)
        word = np.uint32(0)
        for byte in range(word_bytes):
            word |= np.uint32(rows[row, at + 4 + byte]) << np.uint32(8 * byte)
        words[row] = word
        places[row, 2] = scales[rows[row, at + 4 + word_bytes]]
        if has_angles:
            places[row, 3] = angles[rows[row, at + 5 + word_bytes]]
        increasing &= row == 0 or words[row - 1] <= word
    return increasing
