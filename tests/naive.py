"""Slow, obvious twins of the public functions, written from the papers with loops and sets.

They are the oracle of the property tests; nothing here is clever and nothing here is imported by the engine.
"""

import math
import unicodedata

import numpy as np

# ---------------------------------------------------------------------------------------------------------------------
# Evaluation: the protocol of Revisited Oxford and Paris, and names in line formats


def without(ranking, junk):
    """The ranking as if the junk had never been in the database."""
    return [image for image in ranking if image not in junk]


def trapezoid_average_precision(ranking, positives, junk):
    """For each positive found, half the precision just before it plus half the precision at it; missing ones add 0."""
    filtered = without(ranking, junk)
    total, found = 0.0, 0
    for rank, image in enumerate(filtered):
        if image in positives:
            before = found / rank if rank else 1.0
            found += 1
            total += (before + found / (rank + 1)) / 2
    return total / len(positives)


def precision_at(ranking, positives, junk, k):
    """Positives among the first k; where all positives were found by rank k' < k, among the first k'."""
    filtered = without(ranking, junk)
    ranks = [filtered.index(image) + 1 if image in filtered else math.inf for image in positives]
    depth = min(max(ranks), k)
    return sum(rank <= depth for rank in ranks) / depth


def revisited(queries, rankings):
    """difficulty -> (mAP, {k: mP@k}, queries) for queries {name: (easy, hard, junk)} outside the database."""
    report = {}
    for difficulty in ("easy", "medium", "hard"):
        values = []
        for name, (easy, hard, junk) in queries.items():
            positives = {"easy": easy, "medium": easy | hard, "hard": hard}[difficulty]
            dropped = {"easy": junk | hard, "medium": junk, "hard": junk | easy}[difficulty]
            if positives:
                average = trapezoid_average_precision(rankings[name], positives, dropped)
                values.append([average, *(precision_at(rankings[name], positives, dropped, k) for k in (1, 5, 10))])
        means = [sum(column) / len(column) for column in zip(*values, strict=True)] or [math.nan] * 4
        report[difficulty] = (means[0], dict(zip((1, 5, 10), means[1:], strict=True)), len(values))
    return report


def escape_name(name):
    """Character by character, by what Unicode says of each."""
    text = ""
    for character in name:
        control = unicodedata.category(character) in ("Cc", "Cs") or character == "\ufeff"
        if character.isspace() or control or character == "%":
            text += "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
        else:
            text += character
    return text


# --- Aggregation and selective match: Tolias, Jenicek, Chum, ECCV 2020, section 3 ------------------------------


def squared_distance(one, other):
    """The sum of the squared differences of the components."""
    return sum((float(a) - float(b)) ** 2 for a, b in zip(one, other, strict=True))


def nearest_words(descriptor, centroids, k):
    """The k nearest centroids by squared distance, the lower number first among equals."""
    distances = [squared_distance(descriptor, centroid) for centroid in centroids]
    return sorted(range(len(centroids)), key=lambda word: (distances[word], word))[:k]


def walk(query, codes, labels, links, entries, beam, spread, k):
    """The k nearest words that a best-first search finds which looks around two places at a time; -1 for none.

    codes [K, D] and links, a list of places for each, are by place; labels name the word of each place.
    """
    room = -(-max(beam, k) // 8) * 8
    far = [sum((int(a) - int(b)) ** 2 for a, b in zip(query, code, strict=True)) for code in codes]
    seen, done = set(entries), set()
    view = sorted((far[place], place) for place in seen)[:room]
    while open_places := [place for _, place in view if place not in done][:2]:
        limit = view[max(k, 5) - 1][0] if len(view) >= max(k, 5) else math.inf
        if far[open_places[0]] > spread * limit:
            break
        done.update(open_places)
        fresh = {other for place in open_places for other in links[place]} - seen
        seen |= fresh
        view = sorted([*view, *((far[place], place) for place in fresh)])[:room]
    kept = view[: max(2 * k, 12)]
    words = [word for _, word in sorted((distance, labels[place]) for distance, place in kept)]
    return (words + [-1] * k)[:k]


def refined_word(descriptor, word, centroids, neighbours, second):
    """(word, squared distance) of the nearest among a word, its neighbours, and the first ones of each of those."""

    def links(node):
        row = neighbours[node]
        return row[: row.index(-1)] if -1 in row else row

    around = [word, *links(word)]
    candidates = {*around, *(other for near in around for other in links(near)[:second])}
    distance, nearest = min((squared_distance(descriptor, centroids[other]), other) for other in candidates)
    return nearest, distance


def lloyd(descriptors, centroids, rounds):
    """Centroids after so many rounds of k-means, and the mean squared distance in each; no word may become empty."""
    distortions = []
    for _ in range(rounds):
        clusters = [[] for _ in centroids]
        distances = []
        for descriptor in descriptors:
            word = nearest_words(descriptor, centroids, 1)[0]
            clusters[word].append(descriptor)
            distances.append(squared_distance(descriptor, centroids[word]))
        centroids = [
            [math.fsum(column) / len(members) for column in zip(*members, strict=True)] for members in clusters
        ]
        distortions.append(sum(distances) / len(distances))
    return centroids, distortions


def aggregate(descriptors, words, centroids):
    """word → sum of the residuals of the descriptors that have it among their words, in float32, in their order."""
    sums = {}
    for descriptor, own_words in zip(descriptors, words, strict=True):
        for word in own_words:
            residual = [np.float32(a) - np.float32(b) for a, b in zip(descriptor, centroids[word], strict=True)]
            old = sums.get(int(word), [np.float32(0)] * len(residual))
            sums[int(word)] = [a + b for a, b in zip(old, residual, strict=True)]
    return sums


def binarise(vector):
    """1 where a component is greater than 0, else 0."""
    return [1 if component > 0 else 0 for component in vector]


def selectivity(similarity, alpha, threshold):
    """sigma(s) = s ** alpha where s >= threshold, else 0."""
    return similarity**alpha if similarity >= threshold else 0.0


def asmk_score(query, image, alpha=3.0, threshold=0.0, weights=None):
    """The normalised score of two images given as word → bits."""
    weights = weights or {}
    total = 0.0
    for word in sorted(query):
        if word in image:
            differing = sum(a != b for a, b in zip(query[word], image[word], strict=True))
            similarity = 1 - 2 * differing / len(query[word])
            total += weights.get(word, 1.0) * selectivity(similarity, alpha, threshold)
    norms = [math.sqrt(sum(weights.get(word, 1.0) for word in bits)) for bits in (query, image)]
    return total / (norms[0] * norms[1]) if norms[0] and norms[1] else 0.0


def idf_weights(images, vocabulary):
    """word → ln(N / n_w) ** 2, and 1 for a word that no image has."""
    counts = {word: sum(word in image for image in images) for word in range(vocabulary)}
    return {word: math.log(len(images) / n) ** 2 if n else 1.0 for word, n in counts.items()}


def smk_score(query, image, alpha=3.0, threshold=0.0):
    """SMK of two images given as lists of (word, unit vector): the double sum, self-similarity made 1 on both sides."""

    def total(one, other):
        pairs = [(x, y) for word, x in one for other_word, y in other if word == other_word]
        return sum(selectivity(sum(a * b for a, b in zip(x, y, strict=True)), alpha, threshold) for x, y in pairs)

    squared = total(query, query) * total(image, image)
    return total(query, image) / math.sqrt(squared) if squared else 0.0


def real_asmk_score(query, image, alpha=3.0, threshold=0.0):
    """ASMK of two images given as word → sum of residuals: cosines instead of bits, normalised by the words alike."""

    def unit(vector):
        return [float(value) / (math.sqrt(sum(float(v) ** 2 for v in vector)) + 1e-6) for value in vector]

    shared = [word for word in query if word in image]
    cosines = [sum(a * b for a, b in zip(unit(query[w]), unit(image[w]), strict=True)) for w in shared]
    total = sum(selectivity(cosine, alpha, threshold) for cosine in cosines)
    return total / math.sqrt(len(query) * len(image)) if query and image else 0.0


# --- Elias-Fano lists -----------------------------------------------------------------------------------------------


def elias_fano(numbers, universe):
    """The bytes of one list of increasing numbers below `universe`, as a string of bits turned into bytes."""
    if not numbers:
        return b""
    low = max(8, math.floor(math.log2(universe / len(numbers))))
    lows = [(number >> bit) & 1 for number in numbers for bit in range(low)]
    highs = [0] * (len(numbers) + ((universe - 1) >> low) + 1)
    for place, number in enumerate(numbers):
        highs[(number >> low) + place] = 1
    return _bits_to_bytes(lows) + _bits_to_bytes(highs)


def _bits_to_bytes(bits):
    padded = bits + [0] * (-len(bits) % 8)
    return bytes(sum(bit << n for n, bit in enumerate(padded[i : i + 8])) for i in range(0, len(padded), 8))


# --- Images and local features: the EXIF standard (tag 0x0112), and Arandjelović and Zisserman, CVPR 2012, section 2


def upright(stored, orientation):
    """A picture as it is looked at, from its rows as they are stored: what the first row and the first column mean."""
    first_row, first_column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    rows, columns = len(stored), len(stored[0])
    height, width = (rows, columns) if first_row in ("top", "bottom") else (columns, rows)
    seen = [[None] * width for _ in range(height)]
    for row in range(rows):
        for column in range(columns):
            place = {}
            for side, distance in ((first_row, row), (first_column, column)):
                if side in ("top", "bottom"):
                    place["y"] = distance if side == "top" else height - 1 - distance
                else:
                    place["x"] = distance if side == "left" else width - 1 - distance
            seen[place["y"]][place["x"]] = stored[row][column]
    return seen


def rootsift(descriptor):
    """The square roots of a SIFT descriptor that was divided by the sum of its components."""
    total = sum(descriptor)
    return [math.sqrt(value / total) if total else 0.0 for value in descriptor]


def to_original(position, factor, offset):
    """Where the centre of a pixel of a shrunken part lies in the original; pixels are squares around whole numbers."""
    edge = position + 0.5
    return edge * factor - 0.5 + offset


# --- What an index is said to hold -------------------------------------------------------------------------------


def imbalance(lengths):
    """K times the chance that two postings drawn with replacement are of the same word."""
    total = sum(lengths)
    return len(lengths) * sum((length / total) ** 2 for length in lengths) if total else None


def index_statistics(images, vocabulary):
    """From {name: set of words}: postings, mean words of an image, empty images, empty words, imbalance."""
    lengths = [sum(word in words for words in images.values()) for word in range(vocabulary)]
    return {
        "live_postings": sum(lengths),
        "words_per_image": sum(map(len, images.values())) / len(images) if images else None,
        "empty_images": sum(not words for words in images.values()),
        "empty_words": lengths.count(0),
        "imbalance": imbalance(lengths),
    }


def best_images(raw, norms, query_norm, top):
    """(score, number) of the images with a score above 0, best first, the lower number first among equals."""
    scored = [(worth / (norm * query_norm), n) for n, (worth, norm) in enumerate(zip(raw, norms, strict=True)) if norm]
    ranked = sorted((-score, number) for score, number in scored if score > 0)
    return [(-score, number) for score, number in ranked[:top]]


def list_digest(codes, ids):
    """What stands for a list, by whole numbers of Python: `codes` rows of 64-bit words, `ids` bytes."""
    full, half, key, lanes_count = (1 << 64) - 1, (1 << 32) - 1, 0x9E3779B97F4A7C15, 32
    words = [int(word) for row in codes for word in row]
    lanes = [len(codes)] * lanes_count
    for place, word in enumerate(words):
        lane, stripe = place % lanes_count, place // lanes_count
        lane_key = ((lane + 1) * 0xD1B54A32D192ED03 & full) ^ key
        mixed = (word + (stripe + 1) * key + lane_key) & full
        lanes[lane] = (lanes[lane] + word + (mixed & half) * (mixed >> 32)) & full
    data = bytes(ids)
    rest = [int.from_bytes(data[begin : begin + 8], "little") for begin in range(0, len(data), 8)]
    total = len(data)
    for value in [*lanes, *rest]:
        total = (total ^ value) * key & full
        total ^= total >> 29
    return total >> 32
