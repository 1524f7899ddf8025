"""Learning-rate schedules, and the study that compares them; docs/design.md is the map."""

import sys

# Here `python -m lrstudy.why` is still looked for: a package that its imports lack is told in one line.
if sys.argv[:1] == ["-m"] and any(word.startswith("lrstudy.") for word in getattr(sys, "orig_argv", ())):
    from lrstudy.process.exits import end_where_a_package_is_missing

    sys.excepthook = end_where_a_package_is_missing
