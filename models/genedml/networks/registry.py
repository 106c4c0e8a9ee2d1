"""The table of networks. To add one, write its file and add a row to :data:`NETWORKS`, or let a package of your own
declare an entry point of the group ``genedml.networks`` that names a :class:`NetworkInfo`. Free of torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from genedml.errors import GeneDMLError, did_you_mean

if TYPE_CHECKING:
    from genedml.networks.network import Network, Shape

GROUP = "genedml.networks"
"""Of the entry points by which other packages add networks."""


@dataclass(frozen=True)
class Sweep:
    """What an ablation varies of a network.

    Args:
        title: in words.
        key: the setting under ``network`` that takes the values, with dots; empty where ``switches`` are named.
        symbol: what the paper calls it.
        values: where neither the user nor the paper names any.
        switches: name of a row, as the paper prints it, to the settings under ``network`` that it changes.
        paper_tables: number of the paper's table by data set.
    """

    title: str
    key: str = ""
    symbol: str = ""
    values: tuple[float, ...] = ()
    switches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paper_tables: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkInfo:
    """One network.

    Args:
        name: as users type it.
        title: as tables print it.
        network: its class, as ``module:Class``.
        config: the class of its settings, likewise.
        paper: authors, title, venue.
        year: of the paper; 0 where none is known.
        input: what a spot shows it, in words.
        licence: of its authors' repository, and the state that was read; the code here is ours, under MIT.
        sweeps: what an ablation can vary, by name.
    """

    name: str
    title: str
    network: str
    config: str
    paper: str = ""
    year: int = 0
    input: str = ""
    licence: str = ""
    sweeps: Mapping[str, Sweep] = field(default_factory=dict)


ADDED: dict[str, bool | float] = {"array_mean": True, "loss.centred": True, "linear_share": 0.5}
"""What the preset ``small`` adds to the paper's network."""

GENE_DML = NetworkInfo(
    "gene-dml",
    "Gene-DML",
    "genedml.networks.gene_dml:GeneDML",
    "genedml.networks.gene_dml:GeneDMLConfig",
    paper="Song et al.: Gene-DML: Dual-Pathway Multi-Level Discrimination for Gene Expression Prediction from "
    "Histopathology Images",
    input="its tile's tokens, the tiles around it, all spots of its section",
    licence="none",
    sweeps={
        "components": Sweep(
            "alignment pathways",
            switches={
                "bimodal only": {"loss.instance": False, "loss.group": False},
                "+multi-scale instance": {"loss.instance": True, "loss.group": False},
                "+instance-group": {"loss.instance": False, "loss.group": True},
                "both": {"loss.instance": True, "loss.group": True},
            },
            paper_tables={"skinST": 3, "HER2ST": 8, "STNet": 12},
        ),
        "k": Sweep(
            "number of groups k",
            "loss.groups",
            "k",
            (9, 18, 36),
            paper_tables={"skinST": 4, "HER2ST": 9, "STNet": 13},
        ),
        "lambda": Sweep(
            "weight lambda of the group term",
            "loss.group_weight",
            "lambda",
            (0.3, 0.5, 0.8, 1),
            paper_tables={"skinST": 5, "HER2ST": 10, "STNet": 14},
        ),
        "tau": Sweep(
            "temperature tau of the group term",
            "loss.group_temperature",
            "tau_ig",
            (0.05, 0.07, 0.1),
            paper_tables={"skinST": 6, "HER2ST": 11, "STNet": 15},
        ),
        "additions": Sweep(
            "what the preset small adds to the paper's network",
            switches={
                "none": {"array_mean": False, "loss.centred": False, "linear_share": 0.0},
                "without array mean": ADDED | {"array_mean": False},
                "without centring": ADDED | {"loss.centred": False},
                "without ridge": ADDED | {"linear_share": 0.0},
                "the paper's weights": ADDED | {"loss.prediction_weight": 1.0},
                "all": ADDED,
            },
        ),
    },
)

LINEAR = NetworkInfo(
    "linear",
    "Linear",
    "genedml.networks.mlp:MLP",
    "genedml.networks.mlp:LinearConfig",
    paper="no publication: a floor",
    input="the pooled vector of its tile",
    licence="MIT, ours",
)

MLP = NetworkInfo(
    "mlp",
    "MLP",
    "genedml.networks.mlp:MLP",
    "genedml.networks.mlp:MLPConfig",
    paper="no publication: a floor",
    input="the pooled vector of its tile",
    licence="MIT, ours",
)

ST_NET = NetworkInfo(
    "st-net",
    "ST-Net",
    "genedml.networks.st_net:STNet",
    "genedml.networks.st_net:STNetConfig",
    paper="He et al.: Integrating spatial gene expression and breast tumour morphology via deep learning. Nature "
    "Biomedical Engineering",
    year=2020,
    input="its tile's tokens",
    licence="none (bryanhe/ST-Net, read as of September 2021)",
)

HISTOGENE = NetworkInfo(
    "histogene",
    "HisToGene",
    "genedml.networks.histogene:HisToGene",
    "genedml.networks.histogene:HisToGeneConfig",
    paper="Pang et al.: Leveraging information in spatial transcriptomics to predict super-resolution gene expression "
    "from histology images in tumors. bioRxiv",
    year=2021,
    input="all spots of its section with their places",
    licence="MIT (maxpmx/HisToGene, read as of November 2021)",
)

HIST2ST = NetworkInfo(
    "hist2st",
    "Hist2ST",
    "genedml.networks.hist2st:Hist2ST",
    "genedml.networks.hist2st:Hist2STConfig",
    paper="Zeng et al.: Spatial transcriptomics prediction from histology jointly through Transformer and graph neural "
    "networks. Briefings in Bioinformatics",
    year=2022,
    input="all spots of its section with their places, and which are near",
    licence="none (biomed-AI/Hist2ST, read as of April 2022)",
)

BLEEP = NetworkInfo(
    "bleep",
    "BLEEP",
    "genedml.networks.bleep:BLEEP",
    "genedml.networks.bleep:BLEEPConfig",
    paper="Xie et al.: Spatially resolved gene expression prediction from histology images via bi-modal contrastive "
    "learning. NeurIPS",
    year=2023,
    input="the pooled vector of its tile, and the labels of all training spots",
    licence="Apache-2.0 (bowang-lab/BLEEP, read as of October 2024)",
)

TRIPLEX = NetworkInfo(
    "triplex",
    "TRIPLEX",
    "genedml.networks.triplex:TRIPLEX",
    "genedml.networks.triplex:TRIPLEXConfig",
    paper="Chung et al.: Accurate spatial gene expression prediction by integrating multi-resolution features. CVPR",
    year=2024,
    input="its tile's tokens, the tiles around it, all spots of its section",
    licence="none (NEXGEM/TRIPLEX, read as of May 2025)",
)

EGN = NetworkInfo(
    "egn",
    "EGN",
    "genedml.networks.egn:EGN",
    "genedml.networks.egn:EGNConfig",
    paper="Yang et al.: Exemplar guided deep neural network for spatial transcriptomics analysis of gene expression "
    "prediction. WACV",
    year=2023,
    input="its tile's tokens, and the training tiles most like it with their labels",
    licence="none (Yan98/EGN, read as of October 2023)",
)

M2OST = NetworkInfo(
    "m2ost",
    "M2OST",
    "genedml.networks.m2ost:M2OST",
    "genedml.networks.m2ost:M2OSTConfig",
    paper="Wang et al.: M2OST: Many-to-one regression for predicting spatial transcriptomics from digital pathology "
    "images. AAAI",
    year=2025,
    input="three fields of view: its tile's tokens, the 3x3 and the 5x5 tiles around it; or three tiles",
    licence="MIT (Dootmaan/M2OST, read as of December 2025)",
)

DEEPSPOT = NetworkInfo(
    "deepspot",
    "DeepSpot",
    "genedml.networks.deepspot:DeepSpot",
    "genedml.networks.deepspot:DeepSpotConfig",
    paper="Nonchev et al.: DeepSpot: Leveraging spatial context for enhanced spatial transcriptomics prediction from "
    "H&E images. medRxiv",
    year=2025,
    input="its tile, the tile's tokens and the tiles around it, as sets",
    licence="MIT (ratschlab/DeepSpot)",
)

NETWORKS: dict[str, NetworkInfo] = {
    info.name: info
    for info in (
        GENE_DML,
        ST_NET,
        HISTOGENE,
        HIST2ST,
        EGN,
        BLEEP,
        TRIPLEX,
        M2OST,
        DEEPSPOT,
        LINEAR,
        MLP,
    )
}
"""The networks that come with genedml, by name."""


@cache
def installed() -> dict[str, NetworkInfo]:
    """Networks of other packages, by name."""
    rows = {}
    for point in entry_points(group=GROUP):
        info = point.load()
        if not isinstance(info, NetworkInfo) or info.name in NETWORKS:
            raise GeneDMLError(
                f"The entry point {point.value} of the group {GROUP} is no NetworkInfo, or has the name of a network "
                "of genedml. Remove or update the package that declares it."
            )
        rows[info.name] = info
    return rows


def network_names() -> list[str]:
    """Every network's name, those of other packages last."""
    return [*NETWORKS, *installed()]


def network_info(method: str) -> NetworkInfo:
    """The row of a network.

    Raises:
        GeneDMLError: there is none of this name.
    """
    known = NETWORKS | installed() if method not in NETWORKS else NETWORKS
    if method not in known:
        meant = did_you_mean(method, known)
        raise GeneDMLError(f"No method is called {method!r}.{meant} There are: {', '.join(network_names())}.")
    return known[method]


def title_of(method: str, variant: str = "") -> str:
    """How tables print a network; its name where the package that adds it is not installed.

    ``variant``: of :func:`variant_of`, in brackets behind it.
    """
    title = network_info(method).title if method in network_names() else method
    return f"{title} ({variant})" if variant else title


def config_class(method: str) -> type:
    """The class of a network's settings."""
    return _load(network_info(method).config)


def network_class(method: str) -> "type[Network]":
    """The class of a network."""
    return _load(network_info(method).network)


def variant_of(method: str, config: Any) -> str:
    """What tables call a network of these settings behind its title, where they are not those of its publication."""
    return network_class(method).variant(config)


def build(method: str, config: Any, shape: "Shape") -> "Network":
    """A network with fresh weights."""
    return network_class(method)(config, shape)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
