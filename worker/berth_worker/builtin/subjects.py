"""What can be told and asked: for each kind of fact its phrasings, and the one sentence that restates it.

The sentence ends with the value, after all the words that identify it: recalling is then finding that sentence again,
and whether anything was told is decided just where the lookup happens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from berth_worker.builtin import phrases
from berth_worker.builtin.values import Rng, code, common, moment, name, number, place, spot, word

NOT_TOLD: Final = "something you have not told me"
Value = Callable[[Rng], str]


@dataclass(frozen=True)
class Subject:
    """One thing that a user can tell a value of. `says` opens the canonical sentence, which the value ends."""

    says: str
    tells: Sequence[str]
    asks: Sequence[str]
    value: Value
    nod: str = "Got it."
    thing: str = ""
    unknown: str = NOT_TOLD

    def statement(self, value: str) -> str:
        """The canonical sentence, by which the fact is found again."""
        return f"{self.says} {value}."

    def not_told(self) -> str:
        """The answer when nothing was told."""
        return f"{self.says} {self.unknown}."


def _fill(templates: Sequence[str], thing: str) -> list[str]:
    return [text.replace("{k}", thing) for text in templates]


def _random_thing(rng: Rng) -> str:
    """A noun nobody knows, so that the model copies the thing too instead of choosing it from a list."""
    noun = word(rng)
    return f"{rng.choice(phrases.ADJECTIVES)} {noun}" if rng.random() < 0.2 else noun


def named(rng: Rng) -> Subject:
    """A pet, a person, a thing that has a name."""
    roll = rng.random()
    if roll < 0.3:
        thing, nod = rng.choice(phrases.PETS), "How lovely!"
    elif roll < 0.55:
        thing, nod = rng.choice(phrases.PEOPLE), "Good to know."
    elif roll < 0.72:
        thing, nod = rng.choice(phrases.NAMED_THINGS), "Good to know."
    else:
        thing, nod = _random_thing(rng), "Good to know."
    says = f"The name of your {thing} is"
    return Subject(says, _fill(phrases.NAME_TELLS, thing), _fill(phrases.NAME_ASKS, thing), name, nod, thing)


def favourite(rng: Rng) -> Subject:
    """A favourite something, in either spelling."""
    noun = rng.choice(phrases.FAVOURITES) if rng.random() < 0.7 else word(rng)
    spelt = rng.choice(("favourite", "favorite"))
    user_noun = "color" if noun == "colour" and rng.random() < 0.5 else noun
    thing = f"{spelt} {user_noun}"
    asks = _fill(phrases.IS_ASKS, thing) + [text.replace("{x}", user_noun) for text in phrases.LIKE_ASKS]
    tells = [
        *_fill(phrases.IS_TELLS, thing),
        f"the {user_noun} i like best is {{v}}",
        f"i like {{v}} most of all {user_noun}s",
    ]
    value = {"city": place, "country": place, "number": number, "teacher": name}.get(noun, common)
    return Subject(f"Your favourite {noun} is", tells, asks, value, "Nice choice.")


def numbered(rng: Rng) -> Subject:
    """A number of one's own."""
    thing = rng.choice(phrases.NUMBERS)
    tells = [*_fill(phrases.IS_TELLS, thing), f"the {thing} is {{v}}"]
    return Subject(
        f"Your {thing} is", tells, [*_fill(phrases.IS_ASKS, thing), f"what is the {thing}"], number, "Noted."
    )


def coded(rng: Rng) -> Subject:
    """A password or a code."""
    thing = (
        rng.choice(phrases.CODES) if rng.random() < 0.7 else f"{word(rng)} {rng.choice(('code', 'password', 'key'))}"
    )
    return Subject(f"The {thing} is", _fill(phrases.THE_TELLS, thing), _fill(phrases.THE_ASKS, thing), code, "Noted.")


def owned(rng: Rng) -> Subject:
    """Anything of one's own: "my X is Y"."""
    thing = rng.choice(phrases.OWN_THINGS) if rng.random() < 0.4 else _random_thing(rng)
    return Subject(f"Your {thing} is", _fill(phrases.IS_TELLS, thing), _fill(phrases.IS_ASKS, thing), common)


def world(rng: Rng) -> Subject:
    """A fact about anything: "the capital of X is Y"."""
    noun = rng.choice(("capital", "king", "colour", "owner", "name", "price", "size", "leader", "winner", word(rng)))
    thing = f"{noun} of {rng.choice(('', '', 'the '))}{word(rng) if rng.random() < 0.5 else word(rng).capitalize()}"
    if rng.random() < 0.4:
        thing = _random_thing(rng)
    return Subject(
        f"The {thing} is",
        _fill(phrases.THE_TELLS[:5], thing),
        _fill(phrases.THE_ASKS, thing),
        rng.choice((name, common)),
    )


def coloured(rng: Rng) -> Subject:
    """A property of a thing, asked by its property."""
    thing = rng.choice((*phrases.NAMED_THINGS, *phrases.LOSABLE_THINGS, "hair", "house", "shirt", word(rng)))
    tells = (
        f"my {thing} is {{v}}",
        f"my {thing} is painted {{v}}",
        f"i have a {{v}} {thing}",
        f"the colour of my {thing} is {{v}}",
    )
    asks = (
        f"what colour is my {thing}",
        f"what color is my {thing}",
        f"which colour does my {thing} have",
        f"what is the colour of my {thing}",
    )
    return Subject(f"The colour of your {thing} is", tells[1:], asks, common)


def timed(rng: Rng) -> Subject:
    """When something happens."""
    thing = rng.choice(phrases.EVENTS) if rng.random() < 0.7 else word(rng)
    tells = _fill(
        ("my {k} is at {v}", "my {k} is on {v}", "i have a {k} at {v}", "the {k} is at {v}", "my {k} starts at {v}"),
        thing,
    )
    asks = _fill(
        (
            "when is my {k}",
            "what time is my {k}",
            "when is the {k}",
            "when does my {k} start",
            "do you remember when my {k} is",
        ),
        thing,
    )
    return Subject(f"Your {thing} is at", tells, asks, moment, "Noted.", unknown="a time you have not told me")


def located(rng: Rng) -> Subject:
    """Where something lies."""
    thing = rng.choice(phrases.LOSABLE_THINGS) if rng.random() < 0.7 else word(rng)
    tells = _fill(
        (
            "my {k} is {v}",
            "i left my {k} {v}",
            "i put my {k} {v}",
            "i hid my {k} {v}",
            "my {k} are {v}",
            "the {k} is {v}",
        ),
        thing,
    )
    asks = _fill(
        (
            "where is my {k}",
            "where are my {k}",
            "where did i put my {k}",
            "where did i leave my {k}",
            "do you know where my {k} is",
        ),
        thing,
    )
    return Subject(f"You left your {thing}", tells, asks, spot, "Noted.", unknown="in a place you have not told me")


def myself(_: Rng) -> Subject:
    """The user's own name."""
    return Subject("Your name is", phrases.SELF_TELLS, phrases.SELF_ASKS, name, "Nice to meet you.", "me")


def living(_: Rng) -> Subject:
    """Where the user lives."""
    return Subject(
        "You live in",
        phrases.LIVE_TELLS,
        phrases.LIVE_ASKS,
        place,
        "Good to know.",
        unknown="a place you have not told me",
    )


def about_me(rng: Rng) -> Subject:
    """Origin, work, age, likes."""
    nowhere = "a place you have not told me"
    return rng.choice(
        (
            Subject(
                "You come from",
                ("i come from {v}", "i am from {v}", "i'm from {v}", "i was born in {v}"),
                ("where do i come from", "where am i from", "where was i born", "do you remember where i am from"),
                place,
                unknown=nowhere,
            ),
            Subject(
                "You work as a",
                ("i work as a {v}", "i am a {v}", "my job is {v}", "i am working as a {v}", "i'm a {v}"),
                (
                    "what do i do for a living",
                    "what is my job",
                    "what do i work as",
                    "what's my profession",
                    "what do i do",
                ),
                common,
                unknown="job you have not told me",
            ),
            Subject(
                "You work at",
                ("i work at {v}", "i work for {v}", "i have a job at {v}", "my company is {v}"),
                ("where do i work", "who do i work for", "which company do i work for", "do you remember where i work"),
                name,
                unknown=nowhere,
            ),
            Subject(
                "Your age is",
                ("i am {v} years old", "i'm {v} years old", "my age is {v}", "i turned {v} today", "i am {v}"),
                (
                    "how old am i",
                    "what is my age",
                    "what's my age",
                    "do you remember how old i am",
                    "how old did i say i am",
                ),
                lambda rng: str(rng.randint(3, 99)),
            ),
            Subject(
                "You like",
                ("i like {v}", "i love {v}", "i really like {v}", "i enjoy {v}", "i am a fan of {v}"),
                (
                    "what do i like",
                    "what do i love",
                    "do you remember what i like",
                    "tell me what i like",
                    "what do i enjoy",
                ),
                common,
            ),
            Subject(
                "You play",
                ("i play {v}", "i play {v} every day", "i am learning to play {v}"),
                ("what do i play", "which instrument do i play", "which sport do i play", "what game do i play"),
                common,
            ),
            Subject(
                "You hate",
                ("i hate {v}", "i don't like {v}", "i do not like {v}", "i can't stand {v}", "i dislike {v}"),
                ("what do i hate", "what don't i like", "what do i not like", "what do i dislike"),
                common,
            ),
        )
    )


KINDS: Final[tuple[tuple[Callable[[Rng], Subject], int], ...]] = (
    (named, 30),
    (myself, 10),
    (living, 8),
    (favourite, 14),
    (numbered, 6),
    (coded, 10),
    (owned, 8),
    (world, 4),
    (coloured, 2),
    (timed, 3),
    (located, 3),
    (about_me, 8),
)


def subject(rng: Rng) -> Subject:
    """A subject of any kind."""
    kinds, weights = zip(*KINDS, strict=True)
    made: Subject = rng.choices(kinds, weights)[0](rng)
    return made
