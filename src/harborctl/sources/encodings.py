"""Names of encodings: PostgreSQL's, and Python's.

PostgreSQL ignores case and everything but letters and digits in a name, and has aliases (manual, Table 23.3). Each of
its names stands for the codec of Python's that reads the same characters: every byte of the single-byte encodings does,
and of EUC_JP, BIG5, EUC_JIS_2004 and SHIFT_JIS_2004 all but a few signs.
"""

from __future__ import annotations

import codecs
import re

from harborctl.errors import UsageError
from harborctl.nearest import did_you_mean

# What the server knows and Python does not: EUC_TW, MULE_INTERNAL; SQL_ASCII is no encoding.
_POSTGRES = {
    "UTF8": "utf-8",
    "UNICODE": "utf-8",
    "EUC_JP": "euc_jp",
    "EUC_JIS_2004": "euc_jis_2004",
    "EUC_CN": "gb2312",
    "EUC_KR": "euc_kr",
    "SJIS": "cp932",
    "SHIFTJIS": "cp932",
    "MSKANJI": "cp932",
    "SHIFT_JIS_2004": "shift_jis_2004",
    "BIG5": "big5",
    "GBK": "gbk",
    "UHC": "cp949",
    "JOHAB": "johab",
    "GB18030": "gb18030",
    "KOI8": "koi8_r",
    "KOI8R": "koi8_r",
    "KOI8U": "koi8_u",
    "ALT": "cp866",
    "WIN": "cp1251",
    "ABC": "cp1258",
    "TCVN": "cp1258",
    "TCVN5712": "cp1258",
    "VSCII": "cp1258",
    **{f"LATIN{number}": f"latin{number}" for number in range(1, 11)},
    **{f"ISO_8859_{number}": f"iso8859_{number}" for number in (5, 6, 7, 8)},
    **{f"WIN{page}": f"cp{page}" for page in (866, 874, *range(1250, 1259))},
    **{f"WIN{page}": codec for page, codec in ((932, "cp932"), (936, "gbk"), (949, "cp949"), (950, "big5"))},
}
_CODECS = {re.sub("[^a-z0-9]", "", name.lower()): codec for name, codec in _POSTGRES.items()}

_WITHOUT_CODEC = {"euctw": "EUC_TW", "muleinternal": "MULE_INTERNAL", "sqlascii": "SQL_ASCII"}

# Text encodings of Python's that no file is written in.
_NO_FILES = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "unicode-escape"}


def codec_of(name: str) -> str:
    """The name of Python's codec for what `--encoding` says.

    Raises:
        UsageError: there is none; names the nearest one.
    """
    clean = re.sub("[^a-z0-9]", "", name.lower())
    if known := _CODECS.get(clean.replace("windows", "win")):
        return known
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    # Nothing else tells base64, which is a codec, too, from an encoding.
    if found is not None and found._is_text_encoding and found.name not in _NO_FILES:
        return name
    known_to = "that Python has no codec for" if clean in _WITHOUT_CODEC else "that neither PostgreSQL nor Python knows"
    raise UsageError(
        f"--encoding {name} is an encoding {known_to}"
        if found is None
        else f"--encoding {name} is no encoding of files",
        code="unknown_encoding",
        hint=_nearest(name),
    )


def _nearest(name: str) -> str:
    from encodings.aliases import aliases

    usable = filter(_is_usable, (*aliases, *aliases.values(), *_POSTGRES))
    return did_you_mean(name, usable) or "Say for example utf-8, latin1, WIN1252 or utf-16."


def _is_usable(name: str) -> bool:
    try:
        codec_of(name) if name in _POSTGRES else codecs.lookup(name)
    except LookupError:
        return False
    return name in _POSTGRES or codecs.lookup(name)._is_text_encoding  # likewise
