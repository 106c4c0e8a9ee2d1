"""Cohorts on the tiny encoder, for processes to import: one dies at the slide called ``deadly``."""

import os
import signal

from genedml_cli.cohort.slide import CohortTask


class TinyTask(CohortTask):
    def load_at(self, place):
        import conftest  # noqa: F401  the tiny encoder, in this process too

        return super().load_at(place)


class DeadlyTask(TinyTask):
    def predict(self, models, slide):
        if slide.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(models, slide)
