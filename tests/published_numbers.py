"""The numbers of result tables, typed again from the papers: a twin of `asmk_engine/reproduction/tables/`.

A line is the label of a row and its numbers as printed; `-` stands for a number that the paper does not give.
"""

from __future__ import annotations

TABLES = {
    # Ox5k, Par6k; Medium: ROxf mAP, mP@10, RPar mAP, mP@10; Hard: the same; mean, diff
    "s000-4": """
        Yokoo et al. [46] GLDv2-clean   | 91.9 94.5 72.8 86.7 84.2 95.9 49.9 62.1 69.7 88.4 79.5 -5.4
        Yokoo et al. [60]† RGLDv2-clean | 86.1 93.9 64.5 81.0 84.1 95.4 35.6 51.5 68.7 86.4 74.1 -
        SOLAR [58] GLDv2-clean          | - - 79.7 - 88.6 - 60.0 - 75.3 - 75.9 -8
        SOLAR [27]† RGLDv2-clean        | 90.6 94.4 70.8 84.6 84.1 95.4 48.0 62.3 68.7 86.4 67.9 -
        GLAM [46] GLDv2-clean           | 94.2 95.6 78.6 88.2 88.5 97.0 60.2 72.9 76.8 93.4 83.4 -4.1
        GLAM [46]‡ RGLDv2-clean         | 90.9 94.1 72.2 84.7 83.0 95.0 49.6 61.6 65.6 87.6 79.3 -
        DOLG [47] GLDv2-clean           | - - 78.8 - 87.8 - 58.0 - 74.1 - 74.7 -7.4
        DOLG [59]† RGLDv2-clean         | 88.3 93.9 70.8 85.3 83.2 95.4 47.4 60.0 67.9 87.4 67.3 -
        Token [58] GLDv2-clean          | - - 82.3 - 75.6 - 66.6 - 78.6 - 75.8 -18.2
        Token [58]† RGLDv2-clean        | 84.3 90.0 61.4 76.4 75.8 94.0 36.9 55.2 54.4 81.0 57.6 -""",
    # Ox5k, Par6k, ROxf Medium, RPar Medium, ROxf Hard, RPar Hard, mean
    "s000-5": """
        HesAff-rSIFT-ASMK⋆+SP [34] | - - 60.6 61.4 36.7 35.0 -
        DELF-ASMK⋆+SP [34]         | - - 67.8 76.9 43.1 55.4 -
        R-ASMK⋆ [48]               | - - 69.9 78.7 45.6 57.7 -
        R-ASMK⋆+SP [48]            | - - 71.9 78.0 48.5 54.0 -
        DIR [47]                   | 79.0 86.3 53.5 68.3 25.5 42.4 59.2
        Radenović et al. [36,34]   | 87.8 92.7 64.7 77.2 38.5 56.3 69.5
        AGeM [9]                   | - - 67.0 78.1 40.7 57.3 -
        SOLAR [47]                 | 78.5 86.3 52.5 70.9 27.1 46.7 60.3
        GLAM [46]                  | 89.7 91.1 66.2 77.5 39.5 54.3 69.7
        DOLG [47]                  | 72.8 74.5 46.4 56.6 18.1 26.6 49.2
        Mei et al. [26]            | 38.4 - - - - - -
        Salvador et al. [43]       | 67.9 72.9 - - - - -
        Chen et al. [4]            | 50.2 65.2 - - - - -
        Liao et al. [22]           | 80.1 90.3 - - - - -
        DIR+RPN [8]                | 85.2 94.0 - - - - -
        CiDeR (Ours)               | 89.9 92.0 67.3 79.4 42.4 57.5 71.4
        CiDeR-FT (Ours)            | 92.6 95.1 76.2 84.5 58.9 68.9 79.4""",
    # Ox5k, Par6k; Medium: ROxf, ROxf+1M, RPar, RPar+1M, each mAP and mP@10; Hard: the same
    "s000-6": """
        DIR [47]                  | 79.0 86.3 53.5 76.9 - - 68.3 97.7 - - 25.5 42.0 - - 42.4 83.6 - -
        Filip et al. [36,34]      | 87.8 92.7 64.7 84.7 45.2 71.7 77.2 98.1 52.3 95.3
                                    38.5 53.0 19.9 34.9 56.3 89.1 24.7 73.3
        AGeM [9]                  | - - 67.0 - - - 78.1 - - - 40.7 - - - 57.3 - - -
        SOLAR [47]                | 78.5 86.3 52.5 73.6 - - 70.9 98.1 - - 27.1 41.4 - - 46.7 83.6 - -
        GeM [47]                  | 79.0 82.6 54.0 72.5 - - 64.3 92.6 - - 25.8 42.2 - - 36.6 67.6 - -
        GLAM [47]                 | 89.7 91.1 66.2 - - - 77.5 - - - 39.5 - - - 54.3 - - -
        DOLG [47]                 | 72.8 74.5 46.4 66.8 - - 56.6 91.1 - - 18.1 27.9 - - 26.6 62.6 - -
        CiDeR (Ours)              | 89.9 92.0 67.3 85.1 50.3 75.5 79.4 97.9 51.4 95.7
                                    42.4 56.4 22.4 35.9 57.5 87.1 22.4 69.4
        CiDeR-FT (Ours)           | 92.6 95.1 76.2 87.3 60.5 78.6 84.5 98.0 56.9 95.9
                                    58.9 71.1 36.8 55.7 68.9 91.3 30.1 73.9
        Yokoo et al. [60]† (Base) | 86.1 93.9 64.5 81.0 51.3 72.1 84.1 95.4 54.2 90.3
                                    35.6 51.5 22.2 42.9 68.7 86.4 27.4 66.9
        SOLAR [27]†               | 90.6 94.4 70.8 84.6 55.8 76.1 80.3 94.6 57.6 92.0
                                    48.0 62.3 30.3 45.3 61.8 83.9 30.7 71.6
        GLAM [46]‡                | 90.9 94.1 72.2 84.7 58.6 76.1 83.0 95.0 58.6 91.7
                                    49.6 61.6 34.1 50.9 65.6 87.6 33.3 72.1
        DOLG [59]†                | 88.3 93.9 70.8 85.3 57.3 76.8 83.2 95.4 57.3 92.0
                                    47.4 60.0 29.5 46.2 67.9 87.4 32.7 72.4
        Token [58]†               | 81.2 89.6 60.8 77.7 44.0 60.9 75.8 94.3 44.1 86.9
                                    37.3 54.1 23.2 37.7 54.8 81.3 19.7 54.4
        CiDeR (Ours)              | 89.8 94.6 73.7 85.5 58.6 76.3 84.6 96.7 59.0 95.1
                                    54.9 66.6 34.6 54.7 68.5 89.1 33.5 76.9
        CiDeR-FT (Ours)           | 90.9 96.1 77.8 88.0 61.8 78.0 87.4 97.0 61.6 94.3
                                    61.9 70.4 39.4 56.8 75.3 90.0 35.8 72.7""",
    # Medium: ROxf, ROxf+1M, RPar, RPar+1M; Hard: the same
    "s002-1": """
        DELF-ASMK*+SP [30, 34]                   | 67.8 53.8 76.9 57.3 43.1 31.2 55.4 26.4
        DELF-D2R-R-ASMK* (GLDv1) [46]            | 73.3 61.0 80.7 60.2 47.6 33.6 61.3 29.9
        + SP (Rerank Top-100) [46]               | 76.0 64.0 80.2 59.7 52.4 38.1 58.6 29.4
        R50-How-ASMK,n=2000 [47]                 | 79.4 65.8 81.6 61.8 56.9 38.9 62.4 33.7
        R101-GeM† [36, 41]                       | 65.3 46.1 77.3 52.6 39.6 22.2 56.6 24.8
        + DSM (Rerank Top-100) [41]              | 65.3 47.6 77.4 52.8 39.2 23.2 56.2 25.0
        R101-GeM-AP (GLDv1) [37]                 | 66.3 - 80.2 - 42.5 - 60.8 -
        R101-GeM+SOLAR (GLDv1) [29]              | 69.9 53.5 81.6 59.2 47.9 29.9 65.5 33.4
        R50-DELG (Global-only, GLDv2-clean) [8]  | 73.6 60.6 85.7 68.6 51.0 32.7 71.5 44.4
        + GV (Rerank Top-100) [8]                | 78.3 67.2 85.7 69.6 57.9 43.6 71.0 45.7
        + GV (Rerank Top-200) [8, 45]            | 79.2 68.2 85.5 69.6 57.5 42.9 67.2 44.5
        + RRT (Rerank Top-100) [45]              | 78.1 67.0 86.7 69.8 60.2 44.1 75.1 49.4
        + RRT (Rerank Top-200) [45]              | 79.5 68.6 87.8 71.5 62.5 46.3 77.1 52.3
        R101-DELG (Global-only, GLDv2-clean) [8] | 76.3 63.7 86.6 70.6 55.6 37.5 72.4 46.9
        + GV (Rerank Top-100) [8]                | 81.2 69.1 87.2 71.5 64.0 47.5 72.8 48.7
        + RRT (Rerank Top-100) [8]               | 79.9 - 87.6 - 64.1 - 76.1 -
        + SuperGlue (Rerank Top-100) [8, 40]     | 79.7 - 87.1 - 62.1 - 71.5 -
        R50-DOLG (GLDv2-clean) [53]              | 80.5 76.6 89.8 80.8 58.8 52.2 77.7 62.8
        R101-DOLG (GLDv2-clean) [53]             | 81.5 77.4 91.0 83.3 61.1 54.8 80.3 66.7
        R50-CVNet-Global (GLDv2-clean)           | 81.0 72.6 88.8 79.0 62.1 50.2 76.5 60.2
        + CVNet-Rerank (Rerank Top-100)          | 86.1 77.6 89.4 79.9 72.8 61.1 78.6 63.9
        + CVNet-Rerank (Rerank Top-200)          | 87.2 78.9 90.0 81.2 74.5 62.9 79.5 66.0
        + CVNet-Rerank (Rerank Top-400)          | 87.9 80.7 90.5 82.4 75.6 65.1 80.2 67.3
        R101-CVNet-Global (GLDv2-clean)          | 80.2 74.0 90.3 80.6 63.1 53.7 79.1 62.2
        + CVNet-Rerank (Rerank Top-100)          | 85.6 79.6 90.6 81.5 72.9 64.5 80.4 66.2
        + CVNet-Rerank (Rerank Top-200)          | 86.4 81.0 91.1 82.7 74.6 66.6 81.0 68.0
        + CVNet-Rerank (Rerank Top-400)          | 87.2 81.9 91.2 83.8 75.9 67.4 81.1 69.3""",
    # mAP@100 of the private queries
    "s002-2": """
        DELF-R-ASMK*+SP [46]                   | 18.8
        R101-GeM+ArcFace [50]                  | 20.7
        R101-GeM+CosFace [55]                  | 21.4
        R50-DELG (GLDv2-clean) [8]             | 24.1
        + GV (Rerank Top-100) [8]              | 24.3
        R101-DELG (GLDv2-clean) [8]            | 26.0
        + GV (Rerank Top-100) [8]              | 26.8
        R50-CVNet-Global (Ours)                | 30.2
        + CVNet-Rerank (Rerank Top-100) (Ours) | 32.4
        R101-CVNet-Global (Ours)               | 32.5
        + CVNet-Rerank (Rerank Top-100) (Ours) | 34.9""",
    # Medium: ROxf, ROxf+1M, RPar, RPar+1M; Hard: the same
    "s003-1": """
        DELF-ASMK*+SP [22]           | 67.8 53.8 76.9 57.3 43.1 31.2 55.4 26.4
        DELF-D2R-R-ASMK*+SP [22]     | 76.0 64.0 80.2 59.7 52.4 38.1 58.6 29.4
        R50-HOW [2]                  | 79.4 65.8 81.6 61.8 56.9 38.9 62.4 33.7
        R101-R-MAC [23]              | 60.9 39.3 78.9 54.8 32.4 12.5 59.4 28.0
        R101-GeM (GLD) [5]           | 67.3 49.5 80.6 57.3 44.3 25.7 61.5 29.8
        R101-SOLAR [19]              | 69.9 53.5 81.6 59.2 47.9 29.9 64.5 33.4
        R50-DELG (GLDv2) [7, 9]      | 77.5 74.8 87.9 77.3 54.8 50.4 73.8 61.0
        R50-DELG (GLDv2) + SP [7, 9] | 79.1 75.9 88.8 77.7 58.4 52.4 76.2 61.6
        R50-DOLG [9]                 | 80.5 76.6 89.8 80.8 58.8 52.2 77.7 62.8
        R50-DPLG                     | 81.1 77.2 90.0 81.7 60.2 53.1 78.4 62.0""",
}


def typed(name: str) -> list[tuple[str, list[float | None]]]:
    """Return (label, numbers) of every row; None for a number that the paper does not give."""
    rows: list[tuple[str, list[float | None]]] = []
    for line in TABLES[name].strip().splitlines():
        label, bar, numbers = line.rpartition("|")
        if bar:
            rows.append((label.strip(), []))
        rows[-1][1].extend(None if one == "-" else float(one) for one in numbers.split())
    return rows
