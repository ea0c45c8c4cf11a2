"""What the cards say about tasks, encoders and decoders, and the papers behind them."""

from __future__ import annotations

from typing import NamedTuple


class TaskText(NamedTuple):
    """A task's title, what a model of it answers, and what its example code shows."""

    title: str
    answer: str
    decisions: str


TASKS: dict[str, TaskText] = {
    "avel": TaskText(
        "audio-visual event localization",
        "For each second of a clip it names the event that is both heard and seen, or background [ave].",
        "segment: a label's index for each second",
    ),
    "avvp": TaskText(
        "audio-visual video parsing",
        "For each second of a clip it names the events that are heard and, apart from them, those that are seen [han].",
        "audio, visual: true where the class is heard, seen",
    ),
}
"""[key] refers to a paper, here and in `PARTS`."""

PARTS: dict[str, str] = {
    "han": "The encoder HAN lets every segment attend to its own stream and to the other one [han].",
    "ave": "The encoder AVE attends to the picture guided by the sound, and runs one LSTM a stream [ave].",
    "mmpyr": "The encoder MM-Pyr attends and convolves over windows of growing length, then weighs the levels [mmpyr].",
    "psp": "The encoder PSP lets segments exchange what they share with similar segments of the other stream [psp].",
    "cmbs": "The encoder CMBS lets each stream tell the other which segments matter [cmbs].",
    "leap": "The decoder LEAP projects the segments onto the embeddings of the class texts, block by block [leap].",
    "mmil": "The decoder MMIL classifies each segment linearly and pools over time and streams by attention [han].",
    "dch": "The decoder DCH classifies each segment directly from the encoded streams [ave].",
}
"""One sentence for each encoder and decoder."""

PAPERS: dict[str, tuple[str, str]] = {
    "leap": (
        "Zhou et al., ECCV 2024",
        "@inproceedings{zhou2024leap,\n"
        "  title = {Label-anticipated Event Disentanglement for Audio-Visual Video Parsing},\n"
        "  author = {Zhou, Jinxing and Guo, Dan and Mao, Yuxin and Zhong, Yiran and Chang, Xiaojun and Wang, Meng},\n"
        "  booktitle = {European Conference on Computer Vision},\n"
        "  year = {2024}\n"
        "}",
    ),
    "han": (
        "Tian et al., ECCV 2020",
        "@inproceedings{tian2020avvp,\n"
        "  title = {Unified Multisensory Perception: Weakly-Supervised Audio-Visual Video Parsing},\n"
        "  author = {Tian, Yapeng and Li, Dingzeyu and Xu, Chenliang},\n"
        "  booktitle = {European Conference on Computer Vision},\n"
        "  year = {2020}\n"
        "}",
    ),
    "ave": (
        "Tian et al., ECCV 2018",
        "@inproceedings{tian2018ave,\n"
        "  title = {Audio-Visual Event Localization in Unconstrained Videos},\n"
        "  author = {Tian, Yapeng and Shi, Jing and Li, Bochen and Duan, Zhiyao and Xu, Chenliang},\n"
        "  booktitle = {European Conference on Computer Vision},\n"
        "  year = {2018}\n"
        "}",
    ),
    "mmpyr": (
        "Yu et al., ACM MM 2022",
        "@inproceedings{yu2022mmpyramid,\n"
        "  title = {MM-Pyramid: Multimodal Pyramid Attentional Network for Audio-Visual Event Localization and Video "
        "Parsing},\n"
        "  author = {Yu, Jiashuo and Cheng, Ying and Zhao, Rui-Wei and Feng, Rui and Zhang, Yuejie},\n"
        "  booktitle = {ACM International Conference on Multimedia},\n"
        "  year = {2022}\n"
        "}",
    ),
    "psp": (
        "Zhou et al., CVPR 2021",
        "@inproceedings{zhou2021psp,\n"
        "  title = {Positive Sample Propagation along the Audio-Visual Event Line},\n"
        "  author = {Zhou, Jinxing and Zheng, Liang and Zhong, Yiran and Hao, Shijie and Wang, Meng},\n"
        "  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},\n"
        "  year = {2021}\n"
        "}",
    ),
    "cmbs": (
        "Xia and Zhao, CVPR 2022",
        "@inproceedings{xia2022cmbs,\n"
        "  title = {Cross-Modal Background Suppression for Audio-Visual Event Localization},\n"
        "  author = {Xia, Yan and Zhao, Zhou},\n"
        "  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},\n"
        "  year = {2022}\n"
        "}",
    ),
}
"""Short reference and BibTeX entry of each paper."""


def task_text(name: str) -> TaskText:
    """Return a task's texts; a task from outside the platform is called by its name."""
    return TASKS.get(name, TaskText(name, _stranger(name), "see the task"))


def about(task: str, encoder: str, decoder: str) -> tuple[str, list[str]]:
    """Return sentences on a task, an encoder and a decoder, and the BibTeX entries of the papers that they name."""
    text = " ".join(
        [task_text(task).answer, *(PARTS.get(name, _stranger(name)) for name in (encoder, decoder))]
    )
    cited = [key for key in PAPERS if f"[{key}]" in text]
    for key in cited:
        text = text.replace(f"[{key}]", f"({PAPERS[key][0]})")
    return text, [PAPERS[key][1] for key in cited]


def _stranger(name: str) -> str:
    return f"`{name}` was registered from outside avplatform."
