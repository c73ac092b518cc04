"""Hides a package of the tests from the kernels that they start, as a learner does not have it.

Where it is installed, the Kubernetes client imports it, and with it two CPU seconds of grammars, into every kernel.
"""

raise ImportError("kubernetes_validate is there for the tests' own process only")
