"""CVNet-Rerank: how similar two images are, by 4-D convolutions of their correlations (Lee et al., CVPR 2022).

    pixels ─backbone─▶ local map ─pyramid─▶ levels        stored once for each image
    levels, levels ─correlation─▶ 9 maps in 4-D ─encoder─▶ vector ─classifier─▶ probability that they match

`pyramid`, `correlation`, `centre_pivot` and `encoder` are the layers, `network` joins them with a backbone,
`checkpoints` and `official` are its files, `codes` keeps levels in 8 bits, and `scoring` compares many pairs at once.
"""
