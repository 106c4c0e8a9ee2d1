"""What every network is to the programs that train and run it. Letters as in :mod:`genedml.networks.inputs`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from genedml.networks.backbone import Backbone
from genedml.networks.inputs import Batch, Needs, Places, Section
from genedml.schema import STRICT, Count


@dataclass(frozen=True, config=STRICT)
class Shape:
    """All that a network's tensors depend on besides its configuration.

    Args:
        genes: M.
        width: D, of the encoder's vectors.
        tokens: T, of a spot's own tile.
        neighbor_grid: tiles along one side of the neighbor grid.
        smooth: whether labels are means over array neighbours.
        bank: spots that :meth:`Network.remember` is given, where the network needs a bank; else 0.
    """

    genes: Count
    width: Count
    tokens: Count
    neighbor_grid: Count
    bank: int = 0
    smooth: bool = False


class Network(nn.Module):
    """Base of every network: ``Subclass(config, shape)``, with a configuration class of its own.

    A subclass implements :meth:`forward`; the other methods have defaults.
    """

    training_only: ClassVar[Sequence[str]] = ()
    """Its parts that :meth:`losses` alone uses. Models do not hold them, but for those of earlier versions."""

    def __init__(self, config: Any, shape: Shape) -> None:
        super().__init__()
        self.config, self.shape, self.takes = config, shape, self.needs(config)

    @classmethod
    def needs(cls, config: Any) -> Needs:
        """What a network of these settings takes of a batch; by default no more than the sections' pooled vectors."""
        return Needs()

    def forward(self, batch: Batch, context: Any = None) -> Float[Tensor, "B M"]:
        """Predicted labels.

        ``context`` is what :meth:`see_sections` gave for ``batch.sections``, where many batches share them.
        """
        raise NotImplementedError

    def without_training(self) -> "Network":
        """This network, from now on without :attr:`training_only`: it predicts, and cannot be trained any more."""
        for name in self.training_only:
            setattr(self, name, None)
        return self

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """The named parts of the loss and their ``total``; by default the mean squared error over spots and genes."""
        assert batch.label is not None
        error = functional.mse_loss(self(batch), batch.label)
        return {"prediction": error, "total": error}

    @classmethod
    def check(cls, config: Any, trained: Sequence[Places], predicted: Sequence[Places]) -> None:
        """Refuse, before anything is extracted, sections that it cannot learn from or predict; by default none.

        Args:
            config: its settings.
            trained: sections that it is going to be trained on.
            predicted: sections that it is then going to predict.

        Raises:
            GeneDMLError: what is in the way, and what to set.
        """

    @classmethod
    def variant(cls, config: Any) -> str:
        """What tables call these settings of it, where they are not the method of the publication; else nothing."""
        return ""

    @classmethod
    def cautions(cls, config: Any, spots: Sequence[int] = ()) -> list[str]:
        """What must be said of tables of these settings; by default nothing.

        ``spots``: labelled ones of every section that it was trained on, where there is a model.
        """
        return []

    def optional_parts(self) -> tuple[str, ...]:
        """Parts of the loss that a batch may lack; training logs how many did. By default none."""
        return ()

    def see_sections(self, sections: Sequence[Section]) -> Any:
        """What all batches of these sections share, computed once; by default nothing."""
        return None

    def load_backbone(self, file: Path) -> None:
        """Start its backbones from a weights file; called before the training, where :attr:`Needs.backbone` says so.

        Raises:
            GeneDMLError: the file is unreadable or of another backbone.
        """
        for part in self.modules():
            if isinstance(part, Backbone):
                part.load(file)

    def finish(self, predicted: Float[Tensor, "S M"], section: Section) -> Float[Tensor, "S M"]:
        """What is made of the predictions of all spots of a section, in its order; by default they stay."""
        return predicted

    def start_from(self, batches: Iterable[Batch]) -> None:
        """Set the untrained network to where training starts; by default :meth:`start_at` the mean of all labels.

        ``batches``: the labelled spots of the training, a section at a time, without tokens and raw tiles.
        """
        labels = [batch.label for batch in batches if batch.label is not None]
        self.start_at(torch.cat(labels).mean(dim=0))

    def start_at(self, mean_label: Float[Tensor, " M"]) -> None:
        """Let the untrained network predict about the mean label: by default, what is called ``head`` begins there."""
        if isinstance(head := getattr(self, "head", None), nn.Linear):
            with torch.no_grad():
                head.bias.copy_(mean_label)

    def remember(self, batches: Iterable[Batch]) -> Int[Tensor, " N"] | None:
        """Keep in buffers, of :attr:`Shape.bank` rows, what is looked up at prediction; by default nothing.

        Called in evaluation mode and without gradients before the training, where :attr:`Needs.bank` asks for it, and
        where :attr:`Needs.bank_moves` says so again before sections held out are predicted and after the training.
        ``batches``: the labelled spots of the training, a section at a time, with label and patient, without raw tiles.

        Returns:
            Which spot each of the N rows holds, counted over ``batches``, so that the model's card can name it.
        """
        return None
