"""A run or a prediction as one HTML page that needs nothing else.

Calling the package is calling :func:`genedml_cli.report.page.report`: Python binds ``genedml_cli.report`` to this
package as soon as one of its modules is imported, and ``from genedml_cli import report`` must give something to call
then, too.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Path:
        """As :func:`genedml_cli.report.page.report`."""
        from genedml_cli.report.page import report

        return report(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
