"""An index that can keep the geometry of local features, of one kind of features or of several."""

from __future__ import annotations

import abc

from asmk_engine.indexes.base import Collection, Held
from asmk_engine.indexes.reading import View
from asmk_engine.inverted.geometry_file import features_kept


class PlacedCollection(Collection[View, Held], abc.ABC):
    """A durable collection whose images have local features, see `Index` and `FusedIndex`."""

    @property
    def geometry(self) -> int | None:
        """The number of features of an image whose geometry is kept when it is added; None keeps none."""
        kept: int | None = self._snapshot.manifest.geometry
        return kept

    def keep_geometry(self, geometry: int | str) -> None:
        """Keep the geometry of images that are added from now on, in one commit; images in the index stay as they are.

        Parameters
        ----------
        geometry : int or "all"
            Number of the strongest features of each image, of each kind of local features; or all of them.

        Raises
        ------
        InputError
            If `geometry` is not a number of 1 or more, or there are no local features; nothing is changed.
        """
        kept = features_kept(geometry)
        self._check_placed()
        with self._writing():
            if kept != self.geometry:
                self._publish(self._snapshot.manifest.following(geometry=kept))

    def _check_placed(self) -> None:
        """Raise InputError unless the features of the index have places."""
