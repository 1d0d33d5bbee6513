"""Does a conversation survive? Recall questions that berth-tiny cannot answer from its training, only from the session.

Every value here is a real name or word that the training generator never produces (it filters by `HELD_OUT`), and the
phrasings are written apart from the generator's. An item is a plain list of user messages, so that any driver can put
it to any server: send the turns one after another, keep the model's own answers in the history, and score the last.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES: Final = _words(
    "Milo Luna Bella Charlie Daisy Rocky Coco Simba Nala Felix Whiskers Biscuit Pepper Ziggy Mochi Pumpkin Bandit "
    "Gizmo Hazel Rosie Murphy Archie Winston Poppy Tigger Smokey Cleo Loki Olive Waffles Alice Benjamin Clara Dmitri "
    "Eleanor Francesca Gabriel Hannah Ingrid Jonathan Katarina Leonardo Margaret Nikolai Octavia Penelope Quentin "
    "Rebecca Sebastian Theodora Ursula Valentina Wolfgang Yasmin Zachary Fatima Kenji Priya Mateo Siobhan"
)
CITIES: Final = _words(
    "Lisbon Oslo Nairobi Kyoto Toronto Prague Seville Helsinki Bogota Marrakesh Dublin Krakow Valparaiso Tbilisi "
    "Edinburgh Chicago Melbourne Jakarta Antwerp Ljubljana"
)
COLOURS: Final = _words("turquoise magenta burgundy indigo lavender ochre beige maroon emerald scarlet")
FOODS: Final = _words(
    "lasagne sushi paella falafel goulash ramen tiramisu couscous dumplings pancakes risotto guacamole hummus tacos"
)
CODES: Final = _words(
    "swordfish xylophone Quasar77 BLUE-HERON tangerine42 zebra-crossing Kx93-Lq7 moonlight opensesame "
    "correct-horse 7f3a9c hunter42 Gibraltar nightowl R2D2-C3PO"
)
ANIMALS: Final = _words("otter penguin elephant octopus giraffe hedgehog walrus flamingo badger dolphin")

HELD_OUT: Final = frozenset(word.lower() for group in (NAMES, CITIES, COLOURS, FOODS, CODES, ANIMALS) for word in group)
"""Lower-case; none of these is ever a word of a training dialogue."""

_FILLERS: Final = (
    "hello",
    "Hi there!",
    "how are you?",
    "How are you today?",
    "tell me a joke",
    "thanks",
    "Thank you!",
    "What can you do?",
    "count to five",
    "can you count to 10?",
    "who are you?",
    "good morning",
    "ok",
    "That is interesting.",
    "what time is it?",
    "say the days of the week",
    "I am a bit tired today.",
    "Why is the sky blue?",
    "nice",
    "Tell me a story.",
)


@dataclass(frozen=True)
class RecallItem:
    """User messages of one conversation, the last of which asks; `expect` is the value that its answer must hold."""

    turns: tuple[str, ...]
    expect: str


@dataclass(frozen=True)
class _Fact:
    """What is told, what is asked, and the value: one fact, phrased; `thing` is what it is about."""

    tell: str
    ask: str
    value: str
    thing: str


def _pick(rng: random.Random, tells: Sequence[str], asks: Sequence[str], value: str, thing: str) -> _Fact:
    tell, ask = rng.choice(tells), rng.choice(asks)
    return _Fact(tell.format(v=value, k=thing), ask.format(k=thing), value, thing)


def _named(rng: random.Random) -> _Fact:
    thing = rng.choice(
        ("cat", "dog", "parrot", "hamster", "rabbit", "horse", "sister", "brother", "boss", "best friend")
    )
    tells = (
        "My {k} is called {v}.",
        "my {k}'s name is {v}",
        "I have a {k} named {v}.",
        "The name of my {k} is {v}.",
        "By the way, my {k} is named {v}.",
    )
    asks = (
        "What is my {k} called?",
        "what's my {k}'s name?",
        "Do you remember the name of my {k}?",
        "Can you tell me what my {k} is called?",
        "What is the name of my {k}?",
    )
    return _pick(rng, tells, asks, rng.choice(NAMES), thing)


def _self(rng: random.Random) -> _Fact:
    tells = ("My name is {v}.", "Hi, I'm {v}.", "hello, my name is {v}", "You can call me {v}.")
    asks = ("What is my name?", "what's my name?", "Do you remember my name?", "Who am I?")
    return _pick(rng, tells, asks, rng.choice(NAMES), "name")


def _home(rng: random.Random) -> _Fact:
    tells = ("I live in {v}.", "i live in {v}", "I am living in {v} now.")
    asks = ("Where do I live?", "where do i live", "Which city do I live in?", "Do you remember where I live?")
    return _pick(rng, tells, asks, rng.choice(CITIES), "home")


def _favourite(rng: random.Random) -> _Fact:
    thing, values = rng.choice((("colour", COLOURS), ("food", FOODS), ("animal", ANIMALS), ("city", CITIES)))
    tells = ("My favourite {k} is {v}.", "my favorite {k} is {v}", "I think my favourite {k} is {v}.")
    asks = (
        "What is my favourite {k}?",
        "what's my favorite {k}?",
        "Do you remember my favourite {k}?",
        "Which {k} do I like best?",
    )
    return _pick(rng, tells, asks, rng.choice(values), thing)


def _number(rng: random.Random) -> _Fact:
    thing = rng.choice(("lucky number", "room number", "locker number", "seat number"))
    tells = ("My {k} is {v}.", "my {k} is {v}", "Please remember that my {k} is {v}.")
    asks = ("What is my {k}?", "what's my {k}?", "Can you tell me my {k}?", "Do you remember my {k}?")
    return _pick(rng, tells, asks, str(rng.randint(11, 9999)), thing)


def _code(rng: random.Random) -> _Fact:
    thing = rng.choice(("password", "secret word", "door code", "wifi password", "code word"))
    tells = ("The {k} is {v}.", "My {k} is {v}.", "remember this: the {k} is {v}", "Please remember the {k}: {v}")
    asks = ("What is the {k}?", "what was the {k}?", "Tell me the {k}, please.", "Do you still know the {k}?")
    return _pick(rng, tells, asks, rng.choice(CODES), thing)


def _object(rng: random.Random) -> _Fact:
    thing = rng.choice(("boat", "robot", "car", "teddy bear", "band", "bike"))
    tells = ("My {k} is called {v}.", "I named my {k} {v}.", "the name of my {k} is {v}")
    asks = ("What is my {k} called?", "What is the name of my {k}?", "how did I name my {k}?")
    return _pick(rng, tells, asks, rng.choice(NAMES), thing)


_KINDS: Final[tuple[Callable[[random.Random], _Fact], ...]] = (
    _named,
    _named,
    _self,
    _home,
    _favourite,
    _favourite,
    _number,
    _code,
    _object,
)


def _item(rng: random.Random) -> RecallItem:
    told = (rng.choice(_KINDS)(rng) for _ in range(rng.randint(1, 3)))
    facts = list({fact.thing: fact for fact in told}.values())  # no fact contradicts another
    wanted = facts[0]
    between = [fact.tell for fact in facts[1:]]
    between += rng.sample(_FILLERS, k=rng.randint(2, 4) - min(len(between), 1))
    rng.shuffle(between)
    before = rng.sample(("hello", "Hi!", "good evening"), k=rng.randint(0, 1))
    return RecallItem((*before, wanted.tell, *between, wanted.ask), wanted.value)


def recall_items(n: int = 200, seed: int = 0) -> list[RecallItem]:
    """`n` recall questions, the same for the same seed; at least two other turns part a fact from its question."""
    rng = random.Random(f"recall-{seed}")
    return [_item(rng) for _ in range(n)]


def is_recalled(answer: str, expect: str) -> bool:
    """Whether `answer` holds `expect` as a whole word, case aside."""
    return re.search(rf"(?<!\w){re.escape(expect)}(?!\w)", answer, re.IGNORECASE) is not None
