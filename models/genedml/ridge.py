"""Ridge regression with its penalty chosen by leaving out one group of sections at a time.

Letters: S spots of a section, N labelled spots of some sections, W width of the vectors, M genes, K eigenvalues.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from genedml.metrics import column_nanmean, nanmean, pcc

ALPHAS = tuple(10.0**power for power in (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5))

NOISE = 1e-12
"""Share of a column's variance that rounding leaves in double precision; a column with less is constant."""

WIDE = 1024
"""Larger matrices are decomposed in single precision, which vectors have: twice as fast. At penalties of 100 and more,
which win at such widths, PCC of a gene changes by less than 1e-5, by less than 1e-6 from 1,000 on."""

ALIKE = 1e-6
"""PCC that differ by less are one, and the least of their penalties is taken: of one column PCC is the same for all."""

Labelled = tuple[np.ndarray, np.ndarray]  # x [N W] and y [N M] of one section; N differs between sections


@dataclass(frozen=True)
class RidgeModel:
    """The fitted plane, the scaling of its inputs included, and each gene's PCC inside the training side.

    ``averaged`` says that vectors are means over array neighbours. ``alpha`` is the penalty that it was fitted with;
    files of models do not keep it.
    """

    weight: Float[np.ndarray, "W M"]
    intercept: Float[np.ndarray, " M"]
    inner_pcc: Float[np.ndarray, " M"]
    averaged: bool = False
    alpha: float | None = None

    def predict(self, vectors: Float[np.ndarray, "S W"]) -> Float[np.ndarray, "S M"]:
        """Labels of every spot of a section."""
        return vectors @ self.weight + self.intercept


def fit_ridge(sections: Sequence[Labelled], groups: Sequence[str], averaged: bool = False) -> RidgeModel:
    """Fit on all sections; the penalty with the best mean PCC is chosen by leaving out one group of them at a time.

    Columns of x are standardised over the spots that are fitted. Labels are centred within their section, since how
    sections differ is no pattern in them (METHOD section 9); predictions are offset to the mean label of all spots.
    Of a single group, or without a defined PCC, the penalty is the middle one. Memory is that of a few W x W matrices
    beside the sections.

    Args:
        sections: x and y of the labelled spots of every section.
        groups: of every section, such as its donor.
        averaged: whether x are means over array neighbours; only remembered.
    """
    mean_label = np.concatenate([y for _, y in sections]).mean(axis=0, dtype=np.float64)
    centred = [(x, y - y.mean(axis=0, dtype=np.float64)) for x, y in sections]
    problem = _Problem(centred, groups)
    inner = problem.inner_pcc() if len(set(groups)) > 1 else {}
    scores = {candidate: score for candidate, of_genes in inner.items() if not np.isnan(score := nanmean(of_genes))}
    best = max(scores.values(), default=0.0) - ALIKE
    alpha = min((candidate for candidate, score in scores.items() if score >= best), default=ALPHAS[len(ALPHAS) // 2])
    solutions = problem.without(None)
    weight = solutions.weight(alpha)
    intercept = (mean_label - solutions.mean @ weight).astype(np.float32)
    inner_pcc = inner.get(alpha, np.full(len(mean_label), np.nan))
    return RidgeModel(weight.astype(np.float32), intercept, inner_pcc, averaged, alpha)


@dataclass(frozen=True)
class _Solutions:
    """The ridge regressions of every penalty: weights are ``basis @ (target / (eigenvalues + penalty))``.

    ``basis`` holds the eigenvectors of the standardised second moments, in units of x; ``target`` the labels there.
    """

    mean: Float[np.ndarray, " W"]
    basis: Float[np.ndarray, "W K"]
    target: Float[np.ndarray, "K M"]
    eigenvalues: Float[np.ndarray, " K"]

    def weight(self, alpha: float) -> Float[np.ndarray, "W M"]:
        return self.basis @ self._shrunk(alpha)

    def pccs(self, x: Float[np.ndarray, "N W"], y: Float[np.ndarray, "N M"]) -> list[Float[np.ndarray, " M"]]:
        """PCC of every gene in a section that was left out, for every penalty."""
        place = (x - self.mean).astype(self.basis.dtype) @ self.basis
        return [pcc(y, place @ self._shrunk(alpha)) for alpha in ALPHAS]

    def _shrunk(self, alpha: float) -> Float[np.ndarray, "K M"]:
        return self.target / (self.eigenvalues + self.eigenvalues.dtype.type(alpha))[:, None]


@dataclass(frozen=True)
class _Sums:
    """Sums over spots of x, of its products and of those with y; those of a part can be taken away from the whole."""

    spots: int
    x: Float[np.ndarray, " W"]
    xx: Float[np.ndarray, "W W"]
    xy: Float[np.ndarray, "W M"]

    @staticmethod
    def of(sections: Sequence[Labelled], origin: Float[np.ndarray, " W"]) -> "_Sums":
        """Section after section, with x counted from ``origin``: without a large mean nothing is lost to rounding."""
        width, genes = len(origin), sections[0][1].shape[1]
        sums = _Sums(sum(len(x) for x, _ in sections), *(np.zeros(s) for s in (width, (width, width), (width, genes))))
        for x, y in sections:
            from_origin = x - origin
            sums.x[:] += from_origin.sum(axis=0)
            sums.xx[:] += from_origin.T @ from_origin
            sums.xy[:] += from_origin.T @ y
        return sums

    def __sub__(self, part: "_Sums") -> "_Sums":
        return _Sums(self.spots - part.spots, self.x - part.x, self.xx - part.xx, self.xy - part.xy)


class _Problem:
    """Sections of which some are left out; y is centred within each.

    With more spots than columns the second moments of the columns are summed once, those of what is left out are taken
    away, and the rest is decomposed; with fewer spots it is the products of the spots, which are fewer.
    """

    def __init__(self, sections: Sequence[Labelled], groups: Sequence[str]) -> None:
        self._pairs = list(zip(sections, groups, strict=True))
        spots = sum(len(x) for x, _ in sections)
        self._origin = sum(x.sum(axis=0, dtype=np.float64) for x, _ in sections) / spots
        self._wide = spots < sections[0][0].shape[1]
        squares = sum(np.square(x - self._origin).sum(axis=0) for x, _ in sections)
        self._least = NOISE * (squares / spots + NOISE * np.square(self._origin))
        self._sums = None if self._wide else _Sums.of(sections, self._origin)

    def inner_pcc(self) -> dict[float, Float[np.ndarray, " M"]]:
        """PCC of every gene for every penalty: mean over the sections, each predicted without its group."""
        scores: list[list[Float[np.ndarray, " M"]]] = []
        for left_out in sorted({group for _, group in self._pairs}):
            solutions = self.without(left_out)
            scores += [solutions.pccs(x, y) for (x, y), group in self._pairs if group == left_out]
        return {
            alpha: column_nanmean(np.stack([of_section[place] for of_section in scores]))
            for place, alpha in enumerate(ALPHAS)
        }

    def without(self, left_out: str | None) -> _Solutions:
        """Ridge regressions on all groups but one; None leaves out none."""
        if self._sums is None:
            return self._by_spots([section for section, group in self._pairs if group != left_out])
        part = [section for section, group in self._pairs if group == left_out]
        return self._by_columns(self._sums - _Sums.of(part, self._origin) if part else self._sums)

    def _by_columns(self, sums: _Sums) -> _Solutions:
        mean = sums.x / sums.spots
        moments = sums.xx - sums.spots * np.outer(mean, mean)
        scale = self._scale(moments.diagonal() / sums.spots)
        moments *= scale
        moments *= scale[:, None]
        eigenvalues, vectors = _decomposed(moments)
        target = vectors.T @ (scale[:, None] * sums.xy).astype(vectors.dtype)
        vectors *= scale[:, None].astype(vectors.dtype)
        return _Solutions(self._origin + mean, vectors, target, eigenvalues)

    def _by_spots(self, sections: Sequence[Labelled]) -> _Solutions:
        x, y = (np.concatenate(parts).astype(np.float64) for parts in zip(*sections, strict=True))
        mean = x.mean(axis=0)
        scale = self._scale(x.var(axis=0))
        x = (x - mean) * scale
        eigenvalues, vectors = _decomposed(x @ x.T)
        basis = (x * scale).T.astype(vectors.dtype) @ vectors
        return _Solutions(mean, basis, vectors.T @ y.astype(vectors.dtype), eigenvalues)

    def _scale(self, variance: Float[np.ndarray, " W"]) -> Float[np.ndarray, " W"]:
        """1 / standard deviation; 0 of a constant column, which then has no weight."""
        varies = variance > self._least
        return np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)


def _decomposed(matrix: Float[np.ndarray, "K K"]) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, "K K"]]:
    """Eigenvalues, of which rounding makes none negative, and eigenvectors in columns, of a symmetric matrix."""
    single = len(matrix) > WIDE
    eigenvalues, vectors = torch.linalg.eigh(torch.from_numpy(matrix.astype(np.float32) if single else matrix))
    return eigenvalues.clamp(min=0).numpy(), vectors.numpy()
