"""genedml: predict spatial gene expression from H&E slides with Gene-DML.

Every command of the command line is one function of a module here: ``training.train``, ``prediction.predict``,
``evaluation.evaluate``, ``features.extract``, ``demo.run_demo``.
"""

from importlib.metadata import version

__version__ = version("genedml")
