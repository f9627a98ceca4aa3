"""MIRROR (Wang et al., IEEE TMI 2025, arXiv 2503.00374): pre-training on pairs of slide and transcriptome.

§ and # in the modules are sections and faults of the published code as the method's specification numbers them.
"""
