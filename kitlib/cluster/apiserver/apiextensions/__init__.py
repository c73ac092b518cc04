"""CustomResourceDefinitions and the kinds that they define.

Stands for apiextensions-apiserver.
"""
