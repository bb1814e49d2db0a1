"""Bytes of a text file to a string, whatever it was saved as."""

import codecs

from corpus.errors import BrokenDocumentError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MAGIC = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a zip archive or an Office file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x7fELF": "a program",
    b"\x1f\x8b": "gzip-compressed",
    b"\xfd7zXZ\x00": "xz-compressed",
    b"\xd0\xcf\x11\xe0": "an old Office file",
    b"{\\rtf": "an RTF file",
}
_SAMPLE_BYTES = 1 << 16
_CONTROLS = frozenset(range(1, 32)) - frozenset(b"\t\n\r\x0b\x0c\x1b\x1a")
_NOT_WINDOWS_1252 = frozenset((0x7F, 0x81, 0x8D, 0x8F, 0x90, 0x9D))
_MAX_CONTROL_SHARE = 0.05


def decode_text(data: bytes, source: str) -> str:
    """UTF-8 or 16 by its mark or by what fits, else an 8-bit encoding as charset-normalizer sees it.

    Raises BrokenDocumentError for binary content.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
    if kind:
        raise BrokenDocumentError(
            source, f"this is {kind}, not text; give it the extension that it has by right"
        )
    wide = _utf16_without_mark(data[:_SAMPLE_BYTES])
    if wide:
        return data.decode(wide, "replace")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        _refuse_binary(data, source, _NOT_WINDOWS_1252)
        return _decode_damaged(data)
    _refuse_binary(data, source, frozenset((0x7F,)))
    return text


def _utf16_without_mark(sample: bytes) -> str | None:
    """Text in Latin script has a zero in every other byte then."""
    half = len(sample) // 2
    if half < 4:
        return None
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if even <= half * 0.02 and odd >= half * 0.7:
        return "utf-16-le"
    return "utf-16-be" if odd <= half * 0.02 and even >= half * 0.7 else None


def _refuse_binary(data: bytes, source: str, more_controls: frozenset[int]) -> None:
    """NUL bytes are left out of the count unless they are many: some programs pad texts with them."""
    sample = data[:_SAMPLE_BYTES]
    controls = sum(sample.count(byte) for byte in _CONTROLS | more_controls)
    if controls > len(sample) * _MAX_CONTROL_SHARE or sample.count(0) > len(sample) * 0.3:
        raise BrokenDocumentError(
            source, "this is binary data, not text; if it is a document, convert it first"
        )


def _decode_damaged(data: bytes) -> str:
    """Not valid UTF-8: either UTF-8 with some damage (lone surrogates, a cut), or an 8-bit encoding."""
    text = data.decode("utf-8", "surrogatepass" if _only_surrogates_are_wrong(data) else "replace")
    intact = sum(not char.isascii() for char in text) - text.count("\ufffd")
    if intact > text.count("\ufffd"):
        return text
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_SAMPLE_BYTES], cp_isolation=["cp1252", "latin_1", "mac_roman"]).best()
    encoding = best.encoding if best else "cp1252"
    return data.decode(encoding, "replace")


def _only_surrogates_are_wrong(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
