"""Query adapters: a new model asks the old index, until the corpus is embedded anew.

An adapter maps vectors of a new embedding space into the space of an index that is already there. It is
learned from a sample of texts embedded in both (``linear``, ``residual``), measured on texts that it has not
seen (``picking``), and bound to its two spaces (``adapter``). The idea and the three families are those of
Drift-Adapter (Vejendla, EMNLP 2025).
"""
