"""Selection of genes by their use for a classification, fitted on training patients, and by a list of the user's."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import RFECV, SelectorMixin, f_classif
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from histill.cohort.rows import read_rows
from histill.data.scaling import FittedState, WinsorizedScaler
from histill.errors import HistillError

COLUMN = "gene symbol"  # `Gene Symbol` of COSMIC's Cancer Gene Census; `GENE_SYMBOL` in its later releases
MAX_ITERATIONS = 5000


class GeneSelection(FittedState, SelectorMixin, BaseEstimator):
    """Recursive feature elimination by a linear SVM, with cross-validation; and the genes of a list.

    The elimination is that of MIRROR (arXiv 2503.00374, public code `tools/distill_rna_feature.py`): each round drops
    the same share of all genes, those of the smallest weights; how many genes stay is decided by the accuracy in
    stratified inner folds. There it runs once for a cohort, so that it sees the classes of validation patients; here it
    is fitted on the training patients of a fold. Genes are standardised for it (`WinsorizedScaler`); those that are
    selected come out as they came in, in their order.

    Parameters
    ----------
    list
        Symbols that are selected wherever they are present; None for no list.
    minimum
        How many genes an elimination leaves at least, listed ones included: the best ranked fill up. Genes that went in
        one round are ranked by their F statistic.
    step
        Share of all genes that a round drops, above 0 and below 1.
    folds
        Inner folds; fewer where a class has fewer patients.
    seed
        Of the SVM.

    Attributes
    ----------
    support_
        bool [F], the genes selected.
    ranking_
        int64 [F]: 1 for genes that the elimination keeps, 2 for those of its last round, 3 for those of the round
        before, and so on; 1 for all where there was no elimination.
    notes_
        What was selected and why, in sentences.
    """

    PARAMETERS = ("minimum", "step", "folds", "seed")
    FITTED = ("support_", "ranking_")  # the list is in `support_`

    def __init__(
        self,
        list: list[str] | None = None,
        minimum: int = 200,
        step: float = 0.05,
        folds: int = 5,
        seed: int = 0,
    ):
        self.list = list
        self.minimum = minimum
        self.step = step
        self.folds = folds
        self.seed = seed

    def fit(
        self, x: np.ndarray, y: Sequence[str | None] | None = None, *, genes: Sequence[str] | None = None
    ) -> GeneSelection:
        """Fit on training rows [N, F].

        Parameters
        ----------
        x
            Expression on a log scale; NaN means not known.
        y
            Class of each row, None where it is not known. Without classes nothing is eliminated: the list alone
            decides, and without a list all genes stay.
        genes
            Symbols [F]; needed where there is a list.

        Raises
        ------
        HistillError
            When a class has a single patient, there is one class only, or no gene of the list is present.
        """
        x = validate_data(self, x, dtype=np.float64, ensure_all_finite="allow-nan")
        self.notes_: list[str] = []
        self.ranking_ = np.ones(x.shape[1], dtype=np.int64)
        listed = self._listed(genes, x.shape[1])
        if y is None:
            self.support_ = np.ones(x.shape[1], dtype=bool) if self.list is None else listed
        else:
            y = np.asarray(y, dtype=object)
            check_consistent_length(x, y)
            known = np.not_equal(y, None).astype(bool)
            classes = y[known].astype(str)
            folds = self._inner_folds(classes)
            scaled = WinsorizedScaler().fit_transform(x[known])
            self.support_ = self._eliminate(scaled, classes, folds) | listed
            self._fill(scaled, classes)
        if not self.support_.any():
            raise HistillError(
                f"none of the {len(self.list)} listed genes is among the {x.shape[1]} genes, such as {self.list[:3]}",
                mend="give a list of the genes' current HGNC symbols",
            )
        return self

    def _listed(self, genes: Sequence[str] | None, count: int) -> np.ndarray:
        """Which columns are genes of the list: bool [F]."""
        if self.list is None:
            return np.zeros(count, dtype=bool)
        if genes is None:
            raise ValueError("a list of genes needs the symbols of the columns")
        present = np.isin(np.asarray(genes), self.list)
        self.notes_.append(f"{int(present.sum())} of {len(set(self.list))} listed genes are present and selected")
        return present

    def _inner_folds(self, classes: np.ndarray) -> int:
        """How many inner folds the training patients' classes allow."""
        names, counts = np.unique(classes, return_counts=True)
        if len(names) < 2:
            only = f"are all of class '{names[0]}'" if len(names) else "have no known class"
            raise HistillError(
                f"genes cannot be selected by class: the training patients {only}",
                mend="name a task with two classes or more, or select by a list alone",
            )
        folds = min(self.folds, int(counts.min()))
        if folds < 2:
            raise HistillError(
                f"genes cannot be selected by class: class '{names[counts.argmin()]}' has one training patient with a "
                "transcriptome, and inner folds need two",
                mend="merge the class with another, or select by a list alone",
            )
        return folds

    def _eliminate(self, x: np.ndarray, classes: np.ndarray, folds: int) -> np.ndarray:
        """Which columns the elimination keeps: bool [F]; `ranking_` of all."""
        search = RFECV(
            LinearSVC(max_iter=MAX_ITERATIONS, random_state=self.seed),
            step=self.step,
            cv=StratifiedKFold(folds),
            scoring="accuracy",
        )
        with warnings.catch_warnings():
            # Weights rank genes: those of the last iteration do so too.
            warnings.simplefilter("ignore", ConvergenceWarning)
            search.fit(x, classes)
        self.ranking_ = search.ranking_.astype(np.int64)
        self.notes_.append(
            f"elimination keeps {search.n_features_} of {x.shape[1]} genes: accuracy "
            f"{search.cv_results_['mean_test_score'].max():.3f} in {folds} inner folds of {len(x)} patients"
        )
        return search.support_

    def _fill(self, x: np.ndarray, classes: np.ndarray) -> None:
        """Add the best ranked genes where fewer than `minimum` are selected."""
        lacking = min(self.minimum, x.shape[1]) - int(self.support_.sum())
        if lacking <= 0:
            return
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Features .* are constant", UserWarning)
            statistic = np.nan_to_num(f_classif(x, classes)[0])
        order = np.lexsort((-statistic, self.ranking_))
        self.support_[order[~self.support_[order]][:lacking]] = True
        self.notes_.append(f"{lacking} of the best ranked genes fill up to {int(self.support_.sum())}")

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        return self.support_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def read_gene_list(path: str | Path) -> list[str]:
    """Genes of a list, each once and in its order, by current HGNC symbol.

    Parameters
    ----------
    path
        Text with one symbol a line (empty lines and lines that begin with # are skipped), or a csv or tsv table with a
        column `Gene Symbol`, as COSMIC's Cancer Gene Census.

    Raises
    ------
    HistillError
        When the file cannot be read, holds no gene, or a line or cell is no single symbol; it names file and line.
    """
    # Loaded when needed: a student predicts where the transcriptome package is absent.
    from histill.transcriptome.gene_sets import current

    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise HistillError(f"gene list {path} cannot be read: {error}", mend="give a text file in UTF-8") from None
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    first = lines[0][1] if lines else ""
    table = any(mark in first for mark in ",;\t") or _name(first) == COLUMN
    genes = _cells(path) if table else lines
    for number, gene in genes:
        if not re.fullmatch(r"[^\s,;\"]+", gene):
            raise HistillError(
                f"{path}, line {number}: {gene!r} is no gene symbol",
                mend="write one symbol a line, or give a table with a column 'Gene Symbol'",
            )
    if not genes:
        raise HistillError(f"{path} holds no gene", mend="write one HGNC symbol a line")
    return current({"list": list(dict.fromkeys(gene for _, gene in genes))})["list"]


def _cells(path: str | Path) -> list[tuple[int, str]]:
    """(line, symbol) of a table's column of symbols; an empty cell is an empty text."""
    problems: list[str] = []
    header, rows = read_rows(path, problems)
    column = next((name for name in header if _name(name) == COLUMN), None)
    if problems:
        raise HistillError(problems[0], mend="give a csv or tsv table with one gene a row")
    if column is None:
        raise HistillError(
            f"{path}: has no column 'Gene Symbol'; its columns are {', '.join(header)}",
            mend="name the column of gene symbols 'Gene Symbol', or write one symbol a line",
        )
    return [(number, row.get(column, "")) for number, row in rows]


def _name(column: str) -> str:
    return column.strip().strip('"').replace("_", " ").casefold()
