"""Networks that score pairs of images: CVNet-Rerank on their maps, and the Reranking Transformer on their features.

    pixels ─backbone─▶ local map ─pyramid─▶ levels        stored once for each image
    levels, levels ─correlation─▶ 9 maps in 4-D ─encoder─▶ vector ─classifier─▶ probability that they match

`pyramid`, `correlation`, `centre_pivot` and `encoder` are the layers of CVNet-Rerank (Lee et al., CVPR 2022), `network`
joins them with a backbone, `checkpoints` and `official` are its files, `codes` keeps levels in 8 bits, and `scoring`
compares many pairs at once.

`transformer` is the Reranking Transformer (Tan et al., ICCV 2021) with `transformer_options` and `transformer_files`;
`image_tokens` is what it is told of an image, and `transformer_pairs` compares many pairs at once.
"""
