"""psana's names of what a detector offers, where those in the data are others.

psana's interfaces rename fields, and compute some of what they offer. A renamed one is found under
either name; for a computed one an error says what to use instead.
"""

from __future__ import annotations

from collections.abc import Mapping

from ffb.shot import Field

#: Name in the data, by the detector's type, alg and psana's name.
RENAMED: Mapping[tuple[str, str, str], str] = {
    ("opal", "raw", "raw"): "image",
    ("piranha4", "raw", "raw"): "image",
    ("archon", "raw", "raw"): "value",
    ("axis", "raw", "raw"): "value",
    ("jungfrau", "raw", "num_hot_pixels"): "numHotPixels",
    ("jungfrau", "raw", "hot_pixel_thresh"): "hotPixelThresh",
    ("ts", "raw", "timestamp"): "timeStamp",
    ("ts", "raw", "destination"): "ebeamDestn",
    ("hrencoder", "raw", "value"): "position",
}

_FRAMES = "is made of raw frames here: give {det}'s raw to reducers of areas, which calibrate it"
_ENCODER = "is computed: record {det}'s encoderValue, scale and scaleDenom, and derive it from them"
_EIGHT = "is eight fields of {det}: take {name}_0 to {name}_7"
_DICT = "is a dictionary in psana: take an entry of {det} by segment, such as {name}.0"
_DIGITIZER = {
    **dict.fromkeys(("waveforms", "padded", "fex_status"), _DICT),
    "peaks": "is a dictionary in psana: take peaks.0.start, peaks.0.length and peaks.0.samples of"
    " {det} (segment 0), with room = N",
    "peaksDict": "is psana's own; {det}'s peaks are peaks.0.start and others",
    "peak_times": "is computed: take peaks.0.start of {det} (segment 0), times 14 / 13 / 6.4 ns",
}

#: What to do instead of a computed one, by the detector's type, alg and name; ``""`` is any.
COMPUTED: Mapping[tuple[str, str, str], str] = {
    ("", "raw", "calib"): _FRAMES,
    ("", "raw", "image"): _FRAMES,
    ("encoder", "raw", "value"): _ENCODER,
    ("encoder", "interpolated", "value"): _ENCODER,
    ("wave8", "raw", "raw_all"): _EIGHT,
    ("wave8", "fex", "integral_all"): _EIGHT,
    ("wave8", "fex", "base_all"): _EIGHT,
    ("ts", "raw", "eventcodes"): "is a list of all codes: filters and lights know codes, and"
    " sequenceValues of {det} has the bits of each",
    **{
        ("hsd", alg, name): text  # the oldest digitizers are called as their alg
        for alg in ("raw", "hsd")
        for name, text in _DIGITIZER.items()
    },
    **{
        ("triginfo", "triginfo", name): "is a part of a word: record {det}'s data"
        for name in ("prescale", "persist", "monitor")
    },
    ("usdusb", "raw", "descriptions"): "is configuration: it does not change within the run",
    ("", "", "config"): "is configuration: it does not change within the run",
}


def renamed(field: Field, dettype: str) -> Field:
    """``field`` under the name that the data have."""
    name = RENAMED.get((dettype, field.alg, field.name), field.name)
    return field._replace(name=name)


def instead(field: Field, dettype: str) -> str:
    """What to do instead of taking a field that psana computes, ``""`` for any other."""
    kinds = (dettype, field.alg), ("", field.alg), ("", "")
    known = (COMPUTED.get((*kind, field.name)) for kind in kinds)
    text = next((t for t in known if t), "")
    name = field.name.removesuffix("_all")
    return f"{field} {text.format(det=field.detector, name=name)}" if text else ""
