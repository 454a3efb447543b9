"""Networks: convolutional backbones, local and global networks on top of them, and their weight files.

Only this package, `extractors`, `flat`, `training` and `codebooks` import torch. The input of every network is RGB
pixels [B, 3, H, W] float32: values in [0, 1], minus the ImageNet mean, divided by the ImageNet standard deviation.
"""
