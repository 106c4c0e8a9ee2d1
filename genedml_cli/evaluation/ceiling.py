"""How well any model could score: the labels of two halves of the counts against each other (METHOD section 6).

Every read of a section goes to one of two halves by the toss of a coin, as if the section had been sequenced twice at
half the depth. What the labels of the halves do not share is noise that no slide shows.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from zlib import crc32

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Float

from genedml.errors import GeneDMLError, reading
from genedml.metrics import column_nanmean, nanmean, partial_pcc, pcc
from genedml_cli import console
from genedml_cli.evaluation.scores import SPLIT_HALVES, FoldScores, write_if_possible
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.gene_map import with_gene_map
from genedml_cli.expression.labels import Labels, make_labels
from genedml_cli.files.storage import write_text
from genedml_cli.notes import Note
from genedml_cli.outputs.prediction_record import record_of
from genedml_cli.outputs.predictions import spots_of
from genedml_cli.outputs.run_folder import CEILING, read_record

SEED = 2021
NOTE = Note(
    None,
    "Split halves: PCC r of the labels that two random halves of the counts give. Attainable: sqrt(2 r / (1 + r)) of "
    "every gene, 0 where r is below 0, the PCC of a model that knows all but the noise of the counts.",
)

HalvesPCC = tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]


def split_halves(
    run: Path, folds: Mapping[str, Sequence[anndata.AnnData]], compute: bool = True
) -> tuple[FoldScores, ...]:
    """Split-half PCC of the labels of a run's test sections, from the counts that it was trained on.

    What was computed before is taken from :data:`genedml_cli.outputs.run_folder.CEILING`.

    Args:
        run: its folder.
        folds: the test sections of each of its folds, as ``predictions/`` holds them.
        compute: what is not kept; else folds of which a section is lacking have none.

    Raises:
        GeneDMLError: counts that are no longer there, or not whole numbers.
    """
    genes = {record_of(section).sample: tuple(section.var_names) for of_fold in folds.values() for section in of_fold}
    kept = {name: table for name, table in _read_kept(run).items() if tuple(table.index) == genes.get(name)}
    if compute and kept.keys() != genes.keys():
        read = _reader(run)
        with console.progress("Split halves", len(folds)) as advance:
            for fold, sections in folds.items():
                for section in sections:
                    if (sample := record_of(section).sample) not in kept:
                        kept[sample] = _of_section(section, read(sample))
                advance(note=f"fold {fold}")
        write_if_possible(lambda: _write_kept(run, kept))
    each = {fold: [kept.get(record_of(section).sample) for section in sections] for fold, sections in folds.items()}
    return tuple(
        halves_of_fold(fold, tuple(folds[fold][0].var_names), [_as_arrays(one) for one in known])
        for fold, of_fold in each.items()
        if len(known := [one for one in of_fold if one is not None]) == len(of_fold)
    )


def split_half_pcc(
    counts: anndata.AnnData, label: Callable[[anndata.AnnData], Labels], seed: int | Sequence[int]
) -> HalvesPCC:
    """PCC of every gene between the labels of two halves of a section's counts, and the same with depth held fixed.

    Spots without a label in one of the halves are left out; a gene that the counts do not have is NaN.

    Args:
        counts: of the section.
        label: makes labels of counts.
        seed: of the coin.

    Raises:
        GeneDMLError: counts that are not whole numbers, or that do not join.
    """
    whole = label(counts)
    first, second = (label(half) for half in thin(counts, np.random.default_rng(seed)))
    both = first.valid & second.valid
    pccs = np.full((2, whole.y.shape[1]), np.nan)
    there = ~np.isnan(whole.y[whole.valid]).any(axis=0)
    y = first.y[both][:, there], second.y[both][:, there]
    pccs[:, there] = pcc(*y), partial_pcc(*y, whole.depth[both])
    return pccs[0], pccs[1]


def seed_of(section: str) -> list[int]:
    """The coin of a section: whatever else is scored, its halves are the same."""
    return [SEED, crc32(section.encode())]


def halves_of_fold(fold: str, genes: tuple[str, ...], sections: Sequence[HalvesPCC]) -> FoldScores:
    """The split halves of a fold: of every gene the mean over its sections."""
    plain, partial = (np.stack(tables) for tables in zip(*sections, strict=True))
    return FoldScores(
        SPLIT_HALVES,
        fold,
        genes,
        mse=float("nan"),
        mae=float("nan"),
        pcc_a=nanmean([nanmean(section) for section in plain]),
        pcc_given_depth=nanmean([nanmean(section) for section in partial]),
        pcc=column_nanmean(plain),
        held_out_pcc=None,
        without_pcc=int(np.isnan(plain).sum()),
        per_gene={"pcc_given_depth": column_nanmean(partial)},
    )


def thin(counts: anndata.AnnData, random: np.random.Generator) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Two halves of raw counts: every read goes to one of them by the toss of a coin.

    Raises:
        GeneDMLError: counts that are not whole numbers, so no reads.
    """
    reads = counts.X.data
    if (reads != np.rint(reads)).any():
        raise GeneDMLError("These counts are not whole numbers, so they cannot be split in halves. Give raw counts.")
    half = random.binomial(reads.astype(np.int64), 0.5)
    first, second = counts.copy(), counts.copy()
    first.X.data, second.X.data = half.astype(np.float32), (reads - half).astype(np.float32)
    return first, second


def _as_arrays(table: pd.DataFrame) -> HalvesPCC:
    return table["pcc"].to_numpy(), table["pcc_given_depth"].to_numpy()


def _of_section(section: anndata.AnnData, counts: anndata.AnnData) -> pd.DataFrame:
    genes, record = tuple(section.var_names), record_of(section)
    halves = split_half_pcc(
        counts,
        lambda table: make_labels(table, spots_of(section), genes, record.label_settings),
        seed_of(record.sample),
    )
    return pd.DataFrame(dict(zip(("pcc", "pcc_given_depth"), halves, strict=True)), index=list(genes))


def _read_kept(run: Path) -> dict[str, pd.DataFrame]:
    """Of every section that was split before, the PCC of its genes, in order."""
    file = run / CEILING
    if not file.is_file():
        return {}
    with reading(f"The ceiling {file}", "Remove it: it is computed again."):
        table = pd.read_csv(file, dtype={"section": str, "gene": str}, keep_default_na=False, na_values=[""])
        return {
            str(section): of_section.set_index("gene")[["pcc", "pcc_given_depth"]]
            for section, of_section in table.groupby("section", sort=False)
        }


def _write_kept(run: Path, kept: Mapping[str, pd.DataFrame]) -> None:
    tables = [
        of_section.rename_axis("gene").reset_index().assign(section=section) for section, of_section in kept.items()
    ]
    columns = ["section", "gene", "pcc", "pcc_given_depth"]
    write_text(run / CEILING, pd.concat(tables)[columns].to_csv(index=False))


def _reader(run: Path) -> Callable[[str], anndata.AnnData]:
    """What reads the counts of a section of a run, with the run's gene map."""
    stored = read_record(run)
    files = {sample["name"]: Path(sample["counts"]) for sample in stored["samples"]}
    gene_map = stored.get("gene_map")

    def read(sample: str) -> anndata.AnnData:
        try:
            return with_gene_map(read_counts(files[sample]), None if gene_map is None else Path(gene_map))
        except GeneDMLError as error:
            error.add_note(
                f"The ceiling of {sample} needs the counts where train found them: run it in the same folder."
            )
            raise

    return read
