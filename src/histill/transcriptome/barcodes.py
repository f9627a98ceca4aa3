"""TCGA barcodes: `TCGA-A8-A08X-01A-11R-A115-07` is project, site, participant, sample type and vial, portion and
analyte, plate, centre (NCI's TCGA barcode reference).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from histill.errors import HistillError

if TYPE_CHECKING:
    import pandas

BARCODE = (
    r"(?P<patient>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})"
    r"(?:-(?P<sample_type>\d\d)(?P<vial>[A-Z])?"
    r"(?:-(?P<portion>\d\d)(?P<analyte>[A-Z])?(?:-(?P<plate>[A-Z0-9]{4})(?:-(?P<center>\d\d))?)?)?)?"
)
SAMPLE_TYPES = {
    "01": "a primary solid tumour",
    "02": "a recurrent solid tumour",
    "03": "a primary blood-derived cancer, peripheral blood",
    "04": "a recurrent blood-derived cancer, bone marrow",
    "05": "an additional new primary tumour",
    "06": "a metastasis",
    "07": "an additional metastasis",
    "08": "human tumour original cells",
    "09": "a primary blood-derived cancer, bone marrow",
    "10": "normal blood",
    "11": "normal solid tissue",
    "12": "normal buccal cells",
    "13": "an EBV-immortalised normal",
    "14": "normal bone marrow",
    "20": "a control analyte",
    "40": "a recurrent blood-derived cancer, peripheral blood",
    "50": "a cell line",
    "60": "a primary xenograft",
    "61": "a cell-line-derived xenograft",
}
# Primary tumours before recurrences before metastases.
PREFERENCE = ("01", "03", "09", "05", "02", "04", "40", "06", "07", "08")
ANALYTES = "HRT"  # RNA analytes as Broad's Firehose ranks them
DNA = "DGWX"  # DNA, and DNA that was amplified as a whole


def clean(samples: list[str]) -> pandas.Series:
    """Barcodes with dashes and in capitals, whatever R or a file system made of them."""
    import pandas

    return pandas.Series(samples, dtype=str).str.replace(".", "-", regex=False).str.upper()


def parse(path: str, samples: list[str]) -> pandas.DataFrame:
    """Parts of barcodes; dots (made of dashes by R) and small letters are taken for what they were.

    A barcode of a patient alone is taken as its primary tumour, vial A.

    Returns
    -------
    pandas.DataFrame
        Index: the samples as given. Columns: position, patient, sample_type, vial, portion, analyte, plate, center;
        text, empty where the barcode is shorter.

    Raises
    ------
    HistillError
        When a name is no barcode.
    """
    table = clean(samples).str.extract(f"^{BARCODE}$")
    wrong = table["patient"].isna()
    if wrong.any():
        raise HistillError(
            f"{path}: {int(wrong.sum())} of {len(samples)} sample ids are no TCGA barcodes, such as "
            f"{samples[int(wrong.argmax())]!r}",
            mend="set transcriptome.matrix.patient to same, or correct the ids",
        )
    table["sample_type"] = table["sample_type"].fillna("01")
    table["vial"] = table["vial"].fillna("A")
    table = table.fillna("")
    table.insert(0, "position", range(len(samples)))
    return table.set_axis(samples)


def replicate_order(samples: list[str]) -> list[tuple]:
    """Sort keys of samples of one patient, best first: analyte H, R, T, then the highest portion and plate.

    Names that are no barcodes sort by name, behind the barcodes.
    """
    table = clean(samples).str.extract(f"^{BARCODE}$").fillna("")
    analyte = table["analyte"].map(lambda letter: ANALYTES.find(letter) if letter in ANALYTES else len(ANALYTES))
    keys = zip(table["patient"] == "", analyte, table["portion"], table["plate"], samples, strict=True)
    # Text sorts upwards; its complement sorts the highest portion and plate first.
    return [(other, rank, _downwards(portion), _downwards(plate), name) for other, rank, portion, plate, name in keys]


def _downwards(text: str) -> tuple[int, ...]:
    return tuple(-ord(letter) for letter in text)
