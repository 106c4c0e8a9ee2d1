"""A cohort whose process dies at the slide called ``deadly``; a module of its own, for processes to import."""

import os
import signal

from genedml_cli.cohort.slide import CohortTask


class DeadlyTask(CohortTask):
    def load_at(self, place):
        import conftest  # noqa: F401  the tiny encoder, in this process too

        return super().load_at(place)

    def predict(self, models, slide):
        if slide.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(models, slide)
