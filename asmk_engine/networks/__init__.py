"""Networks: the convolutional backbones, what is put upon them, and the files their weights stand in.

The only room, with extractors, descriptors and training, that imports torch. Pixels of every network are RGB in [0, 1],
less the mean and over the standard deviation of ImageNet, [B, 3, H, W] float32.
"""
