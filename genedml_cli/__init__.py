"""genedml: predict spatial gene expression from H&E slides with Gene-DML.

Every command of the command line is one function of a module here: ``runs.train``, ``prediction.predict``,
``evaluation.evaluate``, ``report.page.report``, ``features.extract``, ``demo.run_demo``. They take paths as text, too.
"""

from importlib.metadata import version

__version__ = version("genedml")
