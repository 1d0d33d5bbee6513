"""The values that are told and asked for: mostly strings nobody has seen, so that only copying them helps."""

import random
from typing import Final

from berth_worker.builtin.phrases import words
from berth_worker.builtin.recall import HELD_OUT

Rng = random.Random

_ONSETS: Final = (
    words(
        "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl fr gr kn pl qu sh sl sp st th tr tw x y sk sw wh ph gl "
    )
    + ("",) * 6
)
_VOWELS: Final = words("a e i o u a e i o u ai ea ee ie oo ou oa y au ei ia io")
_CODAS: Final = words("n r s t l m ck d x nd rt st ng sh ll tt ss p b g ra lo ne le ly ton ie er") + ("",) * 22
_ACCENTS: Final = str.maketrans("aeiouncs", "äéíöüñçš")
_REAL: Final = words(
    "Oscar Ruby Max Tom Anna Bob Emma Peter Lucy Sam Maria John Sophie David Kate Jack Lily Buddy Fluffy Rex Leo Jim "
    "Paris London Berlin Rome Madrid Tokyo Boston Vienna Cairo Lima Denver Mumbai Sydney Hamburg "
    "red blue green yellow black white orange purple pink grey brown violet silver gold "
    "pizza pasta soup bread cheese rice salad curry chocolate apples steak noodles chips fish cake "
    "tea coffee water lemonade milk tennis football chess swimming music jazz guitar piano winter summer spring "
    "nurse baker pilot teacher engineer painter lawyer farmer wolf lion tiger horse owl bear eagle fox "
    "Monday Tuesday Friday Sunday May June October apple banana cherry river stone dragon castle window silver"
)
_PLACES: Final = words("drawer kitchen garage bag box car fridge cupboard table sofa garden office pocket attic shelf")


def word(rng: Rng) -> str:
    """A pronounceable lower-case string that is no held-out word."""
    while True:
        syllables = rng.choices((1, 2, 3, 4), (25, 45, 24, 6))[0]
        text = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
        if 2 <= len(text) <= 14 and text not in HELD_OUT:
            return text


def name(rng: Rng) -> str:
    """Mostly a random capitalised string; sometimes a common name, two words, accents."""
    roll = rng.random()
    if roll < 0.12:
        return rng.choice(_REAL).capitalize()
    if roll < 0.16:
        return word(rng).translate(_ACCENTS).capitalize()
    if roll < 0.22:
        return rng.choice(("Mr", "Captain", "Lady", "Doctor", "Little", "Miss", "King")) + " " + word(rng).capitalize()
    if roll < 0.28:
        return word(rng).capitalize() + " " + word(rng).capitalize()
    return word(rng).capitalize()


def common(rng: Rng) -> str:
    """A thing one may like: a word, a phrase, a known word; rarely in another script."""
    roll = rng.random()
    if roll < 0.25:
        return rng.choice(_REAL).lower()
    if roll < 0.35:
        return word(rng).capitalize()
    if roll < 0.47:
        return word(rng) + " " + (word(rng) if rng.random() < 0.6 else rng.choice(_REAL).lower())
    if roll < 0.49:
        return "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(rng.randint(1, 3)))
    return word(rng)


def place(rng: Rng) -> str:
    """A town: capitalised, sometimes of two words."""
    roll = rng.random()
    if roll < 0.1:
        return rng.choice(("New", "San", "Port", "North", "Saint")) + " " + word(rng).capitalize()
    if roll < 0.2:
        return rng.choice(_REAL).capitalize()
    return word(rng).capitalize()


def number(rng: Rng) -> str:
    """One to seven digits."""
    return "".join(
        rng.choice("0123456789") for _ in range(rng.choices((1, 2, 3, 4, 5, 6, 7), (1, 5, 5, 5, 2, 2, 1))[0])
    )


def code(rng: Rng) -> str:
    """A password or code: digits, letters of either case, hyphens."""
    roll = rng.random()
    if roll < 0.3:
        return number(rng)
    if roll < 0.5:
        return word(rng)
    if roll < 0.65:
        return word(rng) + rng.choice(("", "-", "_")) + (number(rng) if rng.random() < 0.6 else word(rng))
    if roll < 0.75:
        return word(rng).capitalize() + number(rng)
    if roll < 0.8:
        return word(rng).upper()
    letters = rng.choice(
        ("abcdefghijkmnpqrstuvwxyz0123456789", "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", "abcdefXYZKQ-0129")
    )
    middle = "".join(rng.choice(letters) for _ in range(rng.randint(2, 8)))
    return rng.choice(letters[:6]) + middle + rng.choice(letters[6:12])


def moment(rng: Rng) -> str:
    """When: a clock time, a day, a date."""
    roll = rng.random()
    if roll < 0.35:
        return f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"
    if roll < 0.6:
        return f"{rng.randint(1, 12)} {rng.choice(('am', 'pm'))}"
    if roll < 0.8:
        return rng.choice(
            ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "noon", word(rng))
        )
    return f"{rng.randint(1, 28)} {rng.choice(('January', 'March', 'May', 'June', 'August', 'October', 'December'))}"


def spot(rng: Rng) -> str:
    """Where a thing lies, preposition included."""
    where = rng.choice(_PLACES) if rng.random() < 0.4 else word(rng)
    return rng.choice(("in the", "on the", "under the", "behind the", "in my", "next to the")) + " " + where
