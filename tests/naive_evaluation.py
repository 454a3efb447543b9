"""The protocols as their papers and published evaluations describe them, with loops and dictionaries."""

import math


def average_precision_at(ranking, positives, k):
    """GLDv2: the precision at every first appearance of a right image among the first k, over those that fit there."""
    seen, found, total = set(), 0, 0.0
    for place, image in enumerate(ranking[:k], start=1):
        if image in positives and image not in seen:
            found += 1
            total += found / place
        seen.add(image)
    return total / min(len(positives), k)


def micro_average_precision(ground_truth, guesses):
    """GLDv2: all predictions by falling confidence; truth {image: labels}, guesses {image: (label, confidence)}."""
    ordered = sorted(guesses.items(), key=lambda item: (-item[1][1], item[0]))
    right, total = 0, 0.0
    for place, (image, (label, _)) in enumerate(ordered, start=1):
        if label in ground_truth[image]:
            right += 1
            total += right / place
    return total / sum(1 for labels in ground_truth.values() if labels)


def oxford_average_precision(ranking, positives, junk):
    """Oxford5k's own program: trapezoids between recalls, junk skipped."""
    old_recall, old_precision, area, found, rank = 0.0, 1.0, 0.0, 0, 0
    for image in ranking:
        if image in junk:
            continue
        if image in positives:
            found += 1
        recall, precision = found / len(positives), found / (rank + 1)
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
        rank += 1
    return area


def published_average_precision(numbers, positives, junk):
    """Revisited Oxford and Paris, from numbers: find each positive's rank, lower it by the junk above."""
    ranks = []
    for place, number in enumerate(numbers):
        if number in positives:
            above = sum(1 for other in numbers[:place] if other in junk)
            ranks.append(place - above)
    total = 0.0
    for found, rank in enumerate(sorted(ranks)):
        before = 1.0 if rank == 0 else found / rank
        total += (before + (found + 1) / (rank + 1)) / (2 * len(positives))
    return total


def class_weight(label, labels):
    """HOW paper, 5.1: "the logarithm of the number of classes divided by the class frequency".

    The frequency of a class is the share of the labelled images {image: label} that belong to it.
    """
    classes = set(labels.values())
    members = [image for image in labels if labels[image] == label]
    frequency = len(members) / len(labels)
    return math.log(len(classes) / frequency)


def vote(hits, labels, neighbours, power, weighted):
    """{label: confidence} from hits [(image, similarity)] and labels {image: label}.

    HOW paper, 5.1: the N top-ranked images are accumulated per class, by their similarity (or its root, power 0.5),
    multiplied by the weight of the class where `weighted`.
    """
    nearest = [(image, similarity) for image, similarity in hits if image in labels][:neighbours]
    confidence = {}
    for wanted in {labels[image] for image, _ in nearest}:
        total = sum(similarity**power for image, similarity in nearest if labels[image] == wanted)
        confidence[wanted] = total * class_weight(wanted, labels) if weighted else total
    return confidence
