"""Lists the photographs and sounds by class and split, their places in packages, and licences.

A source is written PACKAGE:PLACE. A place with "!" lies in a Qt archive; one with "*" stands for
several files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from avplatform.models.errors import DataError
from examples.real_media.rcc import read_rcc

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Package:
    """A Debian package, the folder in it that holds what is used, and its licence."""

    name: str
    folder: str
    licence: str


@dataclass(frozen=True, kw_only=True)
class ClassSources:
    """The sources of a class.

    Validation clips are made from the training sources, test clips from the test sources. Where
    there are only training sources, training gets the first part of the recordings and the photos
    as they are, and test gets the rest of the recordings and the photos mirrored.
    """

    photos: tuple[str, ...] = ()
    test_photos: tuple[str, ...] = ()
    sounds: tuple[str, ...] = ()
    test_sounds: tuple[str, ...] = ()

    def of(self, kind: str, split: str) -> tuple[tuple[str, ...], bool]:
        """Return the sources of a kind for a split, and whether train and test share them.

        The kind is "photos" or "sounds".
        """
        train, test = getattr(self, kind), getattr(self, f"test_{kind}")
        return (test, False) if split == "test" and test else (train, bool(train) and not test)

    def all(self) -> list[str]:
        """Return all sources."""
        return [*self.photos, *self.test_photos, *self.sounds, *self.test_sounds]


PACKAGES = {
    "gcompris": Package(
        name="gcompris-qt-data",
        folder="usr/share/gcompris-qt/rcc",
        licence="GPL-3 or later; its copyright file names the author of each recording",
    ),
    "tuxpaint": Package(
        name="tuxpaint-stamps-default",
        folder="usr/share/tuxpaint/stamps",
        licence="GPL-2 or later (copyright file)",
    ),
    "scratch": Package(
        name="scratch",
        folder="usr/share/scratch/Media",
        licence="CC-BY-SA-3.0 (Media/*, copyright file)",
    ),
}

_FARM, _MUSIC = "gcompris:explore_farm_animals.rcc!", "gcompris:instruments.rcc!"
_SOUND, _PEOPLE = "scratch:Sounds/", "scratch:Costumes/People/"
_WORDS = "tuxpaint:animals/mammals/*/*_desc_"

CLASSES: dict[str, ClassSources] = {
    "Speech": ClassSources(
        photos=tuple(
            f"{_PEOPLE}{name}.gif"
            for name in ("anjuli-1", "calvrett", "dan5", "jodi1", "nathan", "cassy-phone-1")
        ),
        test_photos=tuple(
            f"{_PEOPLE}{name}.gif" for name in ("paul1", "mako-screaming", "sam", "marissa")
        ),
        sounds=tuple(f"{_WORDS}{language}.ogg" for language in ("fr", "es", "ca", "be")),
        test_sounds=tuple(f"{_WORDS}{language}.ogg" for language in ("ro", "ru", "el")),
    ),
    "Car": ClassSources(
        photos=(
            "tuxpaint:vehicles/auto/beetle.png",
            "tuxpaint:vehicles/auto/sedan.png",
            "scratch:Costumes/Transportation/car-bug.gif",
        ),
        test_photos=(
            "tuxpaint:vehicles/auto/sportscar2.png",
            "scratch:Costumes/Transportation/car-blue.gif",
        ),
        sounds=(f"{_SOUND}Effects/CarPassing.wav",),
        test_sounds=("gcompris:memory-sound.rcc!LRStartAndStopCarEngine1LACut.ogg",),
    ),
    "Dog": ClassSources(
        photos=(f"{_FARM}dog.webp", "tuxpaint:animals/mammals/dogs/dog.png"),
        test_photos=(
            "tuxpaint:animals/mammals/dogs/dingo.png",
            "gcompris:babyshapes.rcc!dog1/dog3.webp",
        ),
        sounds=(
            "gcompris:memory-sound.rcc!LRBark_1_LA_cut.ogg",
            "gcompris:memory-sound.rcc!LRBark_3_LA_cut.ogg",
        ),
        test_sounds=(f"{_FARM}dog.ogg", "tuxpaint:animals/mammals/dogs/dog.ogg"),
    ),
    "Cat": ClassSources(
        photos=(f"{_FARM}cat.webp",),
        sounds=(f"{_FARM}cat.ogg", f"{_SOUND}Animal/Kitten.wav"),
        test_sounds=(f"{_SOUND}Animal/Meow.wav", f"{_SOUND}Animal/Cat.mp3"),
    ),
    "Chicken_rooster": ClassSources(
        photos=(f"{_FARM}chicken.webp", "tuxpaint:animals/birds/rooster.png"),
        test_photos=(
            "tuxpaint:animals/birds/hen.png",
            "tuxpaint:animals/birds/chicken_profile.png",
        ),
        sounds=(f"{_FARM}chickens.ogg", "tuxpaint:animals/birds/rooster.ogg"),
        test_sounds=("tuxpaint:animals/birds/hen.ogg", f"{_SOUND}Animal/Rooster.wav"),
    ),
    "Violin_fiddle": ClassSources(
        photos=("tuxpaint:hobbies/music/string/violin.png",),
        sounds=(f"{_MUSIC}violin.ogg",),
        test_sounds=("tuxpaint:hobbies/music/string/violin.ogg",),
    ),
    "Cello": ClassSources(
        photos=("tuxpaint:hobbies/music/string/cello.png",),
        sounds=(f"{_MUSIC}cello.ogg",),
        test_sounds=("tuxpaint:hobbies/music/string/cello.ogg",),
    ),
    "Acoustic_guitar": ClassSources(
        photos=("tuxpaint:hobbies/music/string/guitar_classical.png",),
        sounds=(f"{_MUSIC}guitar.ogg", f"{_SOUND}Music Loops/GuitarChords1.mp3"),
        test_sounds=(
            f"{_SOUND}Music Loops/GuitarChords2.mp3",
            f"{_SOUND}Instruments/GuitarStrum.wav",
        ),
    ),
    "Singing": ClassSources(
        sounds=tuple(
            f"{_SOUND}Vocals/{name}"
            for name in ("Singer1.wav", "Sing-me-a-song.mp3", "Hey-yay-hey.mp3")
        ),
        test_sounds=(f"{_SOUND}Vocals/Singer2.wav", f"{_SOUND}Vocals/Oooo-badada.mp3"),
    ),
    "Accordion": ClassSources(sounds=(f"{_MUSIC}accordion.ogg",)),
    "Motorcycle": ClassSources(sounds=(f"{_SOUND}Effects/MotorcyclePassing.wav",)),
    "Basketball_bounce": ClassSources(photos=("tuxpaint:sports/basketball.png",)),
}
"""LLP's classes of which there is a photo or a sound; three have no photo, one no sound."""

_PLACES = {
    "photos": (
        "Nature/beach-malibu Nature/canyon Nature/flower-bed Nature/garden-rock "
        "Nature/grand-canyon Nature/gravel-desert Nature/hill Nature/lake Outdoors/boardwalk "
        "Outdoors/building-at-mit Outdoors/castle Outdoors/city-with-water2 Outdoors/driveway "
        "Outdoors/hay_field Outdoors/train-tracks1 Outdoors/village Indoors/kitchen Indoors/hall"
    ),
    "test_photos": (
        "Nature/pathway Nature/tree Nature/water-and-rocks Outdoors/bench-with-view "
        "Outdoors/brick-wall-and-stairs Outdoors/building-fireproof Outdoors/hallway_outdoors "
        "Outdoors/houses Outdoors/mansion Outdoors/pool Outdoors/silos Outdoors/train-tracks2 "
        "Indoors/clothing-store Sports/playing-field"
    ),
}
BACKGROUND = ClassSources(
    **{
        kind: tuple(f"scratch:Backgrounds/{name}.jpg" for name in names.split())
        for kind, names in _PLACES.items()
    },
    sounds=(
        "gcompris:memory-sound.rcc!LRRain_in_garden_01_LA_cut.ogg",
        f"{_SOUND}Animal/Crickets.wav",
    ),
    test_sounds=(f"{_SOUND}Effects/WaterRunning.mp3", f"{_SOUND}Effects/Ripples.wav"),
)
"""Sources of what is seen and faintly heard where there is no event.

The photos are the photographs of the packages, not the drawings beside them.
"""


def content(cache: Path, source: str) -> list[tuple[str, bytes]]:
    """Return the files of a source as (name, content), in order of their names.

    Raises:
        DataError: it is not there.
    """
    package, _, place = source.partition(":")
    folder = package_folder(cache, PACKAGES[package])
    outer, inner_sign, inner = place.partition("!")
    if inner_sign:
        files = _archive(folder / outer)
        names = [name for name in files if name.endswith(f"/{inner}")]
        if len(names) == 1:
            return [(source, files[names[0]])]
    elif "*" in place:
        found = sorted(folder.glob(place))
        if found:
            return [(f"{package}:{file.relative_to(folder)}", file.read_bytes()) for file in found]
    elif (folder / place).is_file():
        return [(source, (folder / place).read_bytes())]
    raise DataError(
        f"{source} is not in {folder}; the list was made for "
        f"Debian 12's {PACKAGES[package].name}: fetch it on that release"
    )


def package_folder(cache: Path, package: Package) -> Path:
    """Return where the contents of a package lie in the cache."""
    return cache / "packages" / package.name / package.folder


@lru_cache(maxsize=8)
def _archive(file: Path) -> dict[str, bytes]:
    return read_rcc(file)
