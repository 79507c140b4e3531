"""PONI files written by hand."""

FILE = """# made by hand
poni_version: 2.1
Detector: {detector}
Detector_config: {config}
Distance: 0.09
Poni1: 0.004
Poni2: 0.006
Rot1: 0.1
Rot2: -0.2
Rot3: 0.3
"""


def by_hand(tmp_path, detector="Detector", config="{}", **more):
    path = tmp_path / "hand.poni"
    lines = "".join(f"{key}: {value}\n" for key, value in more.items())
    path.write_text(FILE.format(detector=detector, config=config) + lines)
    return path
