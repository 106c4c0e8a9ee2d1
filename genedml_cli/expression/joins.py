"""Are the counts those of these spots? Names are unique within a section only, so a join by name needs more than names.

Letters: S spots.
"""

from collections.abc import Sequence

import anndata
import numpy as np
from jaxtyping import Int

from genedml_cli.files.merged_sections import PLAIN_TAGS, sections_in, several_by_tag, split_names

MOSTLY = 0.5


TOLD_APART = "told_apart"
"""In ``uns`` of counts: that the samples which share their file have names of one tag each, another for every one."""


def doubt_of(counts: anndata.AnnData, names: Sequence[str], place: Int[np.ndarray, " S"]) -> str:
    """Why counts that join by name may be of another section; empty if nothing speaks for it.

    Args:
        counts: of which ``uns[TOLD_APART]`` may say that the other samples of the file have other tags.
        names: of the spots.
        place: the row of ``counts`` that has the name of each spot; -1 where there is none.
    """
    obs, joined = counts.obs, place[place >= 0]
    sections = sections_in(obs.iloc[joined], names=obs.index)
    if sections:
        return f"gives these spots counts of {sections}"
    spots, rows = split_names(names), split_names(obs.index, names)
    tags = spots["tag"][place >= 0].unique()
    if (
        counts.uns.get(TOLD_APART) or len(tags) != 1 or tags[0] not in PLAIN_TAGS
    ):  # a tag that is no section's own default says which section it is
        return ""
    same_barcode = rows["core"].isin(rows["core"].iloc[joined])
    if rows.loc[same_barcode, "tag"].nunique() < 2:
        return ""
    called = f"all named {tags[0]}" if tags[0] else "without a tag"
    return f"holds spots of {several_by_tag(rows[same_barcode])}, and these spots are {called}"


def without_counts(counts: anndata.AnnData, names: Sequence[str]) -> str:
    """Why no spot has counts, as far as the names show it."""
    said = f"No spot has counts: spots are called {', '.join(names[:3])}, counts {', '.join(counts.obs_names[:3])}. "
    if np.isin(list(names), counts.var_names).mean() > MOSTLY:
        return said + "These are turned, genes in rows. Give them with spots in rows; pandas turns a table with .T."
    spots, rows = split_names(names, counts.obs_names), split_names(counts.obs_names, names)
    same_barcode = rows["core"].isin(spots["core"])
    if not spots["core"].isin(rows["core"]).mean() > MOSTLY:
        return said + "Names must be the same in both."
    if rows.loc[same_barcode, "tag"].nunique() > 1:
        sections = several_by_tag(rows[same_barcode])
        return said + f"The counts are of {sections}: give the table of one, with names as the spots have them."
    return said + "Their barcodes are the same, but not what stands beside them: name them alike."
