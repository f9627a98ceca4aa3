"""How the flags `blur` and `fold` answer to defocus and folds of known size, on copies of real fields of tissue.

    python benchmarks/quality.py FIELDS.zip [--every 1]

FIELDS.zip holds JPEG fields of H&E tissue at about 0.5 µm per pixel, 448 px a side and more are used. Prints the two
tables of docs/slides.md, "Quality".
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np

from histill.slides import colour, detail

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "slides"))
import fields

SIDE = 448  # pixels of a 10x tile at 0.5 µm
GLASS = 243
DEFOCUS_UM = (0, 0.5, 1, 1.5, 2, 2.5, 3)
WIDTHS_UM = (16, 24, 40, 60, 100)
LEFT = (1.0, 0.3)  # share of a field that is left as tissue


def read(archive: Path, every: int) -> list[np.ndarray]:
    with zipfile.ZipFile(archive) as files:
        names = [name for name in files.namelist() if name.endswith(".jpg") and not name.startswith("__MACOSX")]
        data = [np.frombuffer(files.read(name), np.uint8) for name in names[::every]]
    pictures = [cv2.cvtColor(cv2.imdecode(part, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)[:SIDE, :SIDE] for part in data]
    return [
        cv2.copyMakeBorder(one, 0, SIDE - one.shape[0], 0, SIDE - one.shape[1], cv2.BORDER_REFLECT) for one in pictures
    ]


def cut(picture: np.ndarray, left: float, random: np.random.Generator) -> np.ndarray:
    """The field with a ragged edge behind which there is glass, float32."""
    if left == 1:
        return picture.astype(np.float32)
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    noise = cv2.GaussianBlur(random.standard_normal((SIDE, SIDE)).astype(np.float32), (0, 0), 12)
    place = x * np.cos(angle) + y * np.sin(angle) + 180 * noise
    tissue = cv2.GaussianBlur((place < np.quantile(place, left)).astype(np.float32), (0, 0), 0.8)[..., None]
    return picture * tissue + GLASS * (1 - tissue)


def is_blurred(picture: np.ndarray) -> bool:
    small = cv2.resize(picture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA).clip(0, 255).astype(np.uint8)
    density = colour.optical_density(small, np.full(3, GLASS, np.float32)).mean(2)
    ratio, contrast = detail.sharpness(density, np.array([[0, 0, small.shape[1], small.shape[0]]]))
    return bool(detail.is_blurred(ratio, contrast)[0])


def on_a_fold(pictures: list[np.ndarray], width_um: float, random: np.random.Generator) -> float:
    """Share of the tiles crossed by a fold that are flagged; each field is mirrored to 3 × 3 tiles."""
    found = []
    for picture in pictures:
        row = np.hstack([picture, picture[:, ::-1], picture])
        plain = np.vstack([row, row[::-1], row])
        density = colour.optical_density(plain, np.full(3, GLASS, np.float32))
        ends = [(int(random.integers(0, 3 * SIDE)), y) for y in (0, 3 * SIDE - 1)]
        line = [ends[0], tuple(random.integers(300, 1000, 2).tolist()), ends[1]]
        folded = np.clip(GLASS * 10 ** -fields.folded(density, line, round(2 * width_um)), 0, 255).astype(np.uint8)
        cover = fields.stroke(density.shape, line, round(2 * width_um))[..., 0] > 0.5
        share = cover.reshape(3, SIDE, 3, SIDE).mean((1, 3)).ravel()
        found += fields.judge(folded, size=224)["fold"][share > min(0.05, width_um / SIDE)].tolist()
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("fields", type=Path)
    parser.add_argument("--every", type=int, default=1, help="use every n-th field")
    options = parser.parse_args()
    pictures = read(options.fields, options.every)
    print(f"{len(pictures)} fields\n\n| defocus, µm | " + " | ".join(f"{sigma:g}" for sigma in DEFOCUS_UM) + " |")
    for left in LEFT:
        random = np.random.default_rng(5)
        sharp = [cut(picture, left, random) for picture in pictures]
        shares = [
            np.mean([is_blurred(cv2.GaussianBlur(one, (0, 0), 2 * sigma) if sigma else one) for one in sharp])
            for sigma in DEFOCUS_UM
        ]
        print(f"| flagged blur, {left:.0%} tissue | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    random = np.random.default_rng(11)
    print("\n| width of a fold, µm | " + " | ".join(map(str, WIDTHS_UM)) + " |")
    shares = [on_a_fold(pictures[::5], width, random) for width in WIDTHS_UM]
    print("| flagged fold | " + " | ".join(f"{share:.0%}" for share in shares) + " |")


if __name__ == "__main__":
    main()
