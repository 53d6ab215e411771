"""Nothing is done."""

from planaria_lab.campaigns.defences.base import Defence, Masks, Protection, Restored, Tensors


class NoDefence(Defence):
    """Nothing is noted and nothing restored: what the damage does."""

    def prepare(self, tensors: Tensors) -> Protection:
        return _Nothing()


class _Nothing(Protection):
    nbytes = 0

    def restore(self, tensors: Tensors, known: Masks | None = None) -> Restored:
        return Restored(tensors)
