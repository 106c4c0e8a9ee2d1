"""A cohort whose process dies at the slide called ``deadly``; a module of its own, for processes to import."""

import os
import signal

from genedml_cli.cohort import crew
from genedml_cli.cohort.slide import CohortTask, predict_one


class DeadlyTask(CohortTask):
    def load(self):
        import conftest  # noqa: F401  the tiny encoder, in this process too

        crew.predict_one = predict_or_die
        return super().load()


def predict_or_die(task, models, slide):
    if slide.name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return predict_one(task, models, slide)
