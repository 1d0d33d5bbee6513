"""Exchanges that tell nothing: small talk, counting, repeating; and stories, long enough to be interrupted."""

from typing import Final

from berth_worker.builtin import phrases
from berth_worker.builtin.values import Rng, code, common, name, word

_WORDS: Final = phrases.words(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_TENS: Final = phrases.words("twenty thirty forty fifty")


def number_word(n: int) -> str:
    """`n` in words, from 1 to 59."""
    if n <= 20:
        return _WORDS[n - 1]
    tens = _TENS[n // 10 - 2]
    return f"{tens}-{_WORDS[n % 10 - 1]}" if n % 10 else tens


def counting(rng: Rng) -> tuple[str, str]:
    """A request to count, and the count: in words when the number was a word, in digits when it was digits."""
    ask = rng.choice(
        ("count to {n}", "can you count to {n}", "please count to {n}", "count from 1 to {n}", "count up to {n}")
    )
    if rng.random() < 0.5:
        n = rng.choice((3, 4, 5, 5, 6, 7, 8, 9, 10, 10, 12, 15, 20, 20, 25, 30, 30, 30, 40))
        answer = ", ".join(number_word(i) for i in range(1, n + 1)).capitalize()
        return ask.replace("from 1 ", "from one ").format(n=number_word(n)), answer + "."
    n = rng.choice((3, 5, 5, 7, 10, 10, 10, 12, 15, 20, 20, 30, 30, 40, 50, rng.randint(3, 60)))
    return ask.format(n=n), ", ".join(map(str, range(1, n + 1))) + "."


def echo(rng: Rng) -> tuple[str, str]:
    """A request to repeat something: pure copying."""
    text = " ".join(rng.choice((word, name, common, code))(rng) for _ in range(rng.randint(1, 3)))
    return rng.choice(("repeat after me: {t}", "say {t}", "please say: {t}", "repeat: {t}", "echo {t}")).format(
        t=text
    ), text


_OPENINGS: Final = (
    "One morning {v} woke up early and saw a golden light behind the hills.",
    "One rainy evening {v} heard a strange song from under the old bridge.",
    "On the first day of winter {v} found a tiny door in the garden wall.",
    "Late one night {v} saw a small boat come down from the stars.",
)
_MIDDLES: Final = (
    "Nobody else had noticed, so {v} took a lantern and went to look.",
    "It was too far to walk, so {v} asked a friendly owl for help.",
    "At first {v} was afraid, but then {v} took one brave step, and then another.",
    "There was no time to lose, so {v} packed some bread and ran down the road.",
)
_EVENTS: Final = (
    "Behind the last tree stood a giant who had lost his hat, and {v} helped him to find it.",
    "There was an old map on the ground, and {v} followed it all the way to the sea.",
    "A little dragon sat there, alone and cold, and {v} stayed with it until the morning.",
    "The wind told a secret there, a very old one, and {v} promised to keep it.",
)
_ENDINGS: Final = (
    "When {v} came home, everybody wanted to hear the story again and again. The end.",
    "And ever since that day {v} has had a friend for life. The end.",
    "Then {v} went home, tired and happy, and slept until noon. The end.",
    "People still talk about {v} when the nights are long. The end.",
)
_HEROES: Final = ("a fox", "a young king", "an old sailor", "a brave mouse")


def story(hero: str) -> str:
    """Four sentences about `hero`, whose letters choose them: a story varies, yet has one right continuation."""
    first, last = ord(hero[0].lower()), ord(hero[-1].lower())
    parts = (_OPENINGS[first % 4], _MIDDLES[first // 4 % 4], _EVENTS[last % 4], _ENDINGS[first % 4])
    return " ".join(part.format(v=hero) for part in parts)


def story_of(rng: Rng) -> tuple[str, str]:
    """A request for a story with the hero named in it, or with none at all."""
    ask = rng.choice(phrases.STORY_ASKS)
    if rng.random() < 0.4:
        return ask.replace(" about {t}", "").replace("write a", "tell me a"), "Here is a story about Tim. " + story(
            "Tim"
        )
    hero = name(rng)
    return ask.format(t=hero), f"Here is a story about {hero}. {story(hero)}"


def small_talk(rng: Rng) -> tuple[str, str]:
    """Any exchange that tells no fact."""
    roll = rng.random()
    if roll < 0.08:
        return counting(rng)
    if roll < 0.14:
        return echo(rng)
    if roll < 0.17:
        return story_of(rng)
    answer, asks = rng.choice(phrases.SMALL_TALK)
    return rng.choice(asks), answer
