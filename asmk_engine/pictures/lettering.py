"""Text for pictures: choice of a font that can draw given names, and fitting of text to a width."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import ImageFont

from asmk_engine.images.listing import shown

REGULAR, LARGE = 13, 20
SYSTEM_FONTS = ("Arial Unicode.ttf", "NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf")
"""Fonts of common systems with many scripts; the font built into Pillow has little more than the Latin alphabet."""
_NEVER_A_LETTER = "\U0010ffff"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Lettering:
    """One typeface in two sizes."""

    regular: Font
    large: Font


def letter(texts: Iterable[str]) -> Lettering:
    """Return the font built into Pillow if it can draw the texts, else the font that can draw most characters."""
    characters = frozenset("".join(map(shown, texts)))
    best = _built_in()
    if any(not draws(best.regular, character) for character in characters):
        known = [best, *(font for name in SYSTEM_FONTS if (font := _system(name)))]
        best = max(known, key=lambda font: sum(draws(font.regular, character) for character in characters))
    return best


@functools.lru_cache(4096)
def draws(font: Font, character: str) -> bool:
    """Return whether the font has a glyph for a character."""
    return character.isspace() or _picture(font, character) != _picture(font, _NEVER_A_LETTER)


def drawable(letters: Lettering, text: str) -> str:
    """Return the text on one line; characters missing in the font lose their accents or become question marks."""
    return "".join(_nearest(letters.regular, character) for character in shown(text))


def shorten(letters: Lettering, text: str, width: float) -> str:
    """Return the text, with dots in the middle if it is wider than `width` pixels: the ends identify a name best."""
    text = drawable(letters, text)
    if letters.regular.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: kept // 2]}...{text[len(text) - (kept + 1) // 2 :]}"
        if letters.regular.getlength(short) <= width:
            return short
    return "..."


def wrap(letters: Lettering, text: str, width: float) -> list[str]:
    """Break the text at spaces into lines of at most `width` pixels; longer words are shortened."""
    lines: list[str] = []
    for word in drawable(letters, text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and letters.regular.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shorten(letters, word, width))
    return lines


def _nearest(font: Font, character: str) -> str:
    if draws(font, character):
        return character
    plain = "".join(part for part in unicodedata.normalize("NFKD", character) if not unicodedata.combining(part))
    return plain if plain and all(draws(font, part) for part in plain) else "?"


def _picture(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


@functools.cache
def _built_in() -> Lettering:
    return Lettering(ImageFont.load_default(REGULAR), ImageFont.load_default(LARGE))


@functools.cache
def _system(name: str) -> Lettering | None:
    try:
        return Lettering(ImageFont.truetype(name, REGULAR), ImageFont.truetype(name, LARGE))
    except OSError:  # not on this system
        return None
