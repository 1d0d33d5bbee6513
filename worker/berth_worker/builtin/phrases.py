"""What people say, as data: the tables behind the training conversations.

`{k}` stands for the thing spoken of, `{v}` for its value, `{w}` for a guess at it, `{a}` for an adjective, `{x}` for
what a favourite is of, `{t}` for what a story is about. A phrase that stands twice is said twice as often.
"""

from typing import Final


def words(text: str) -> tuple[str, ...]:
    """The words of `text`."""
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    """The phrases between the bars, spaces and line ends around them aside."""
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


ADJECTIVES: Final = words("old new big small little brown black white lovely clever lazy funny younger older")
PETS: Final = words(
    """
    cat dog parrot hamster rabbit horse goldfish turtle snake pony lizard kitten puppy bird fish pet budgie canary
    tortoise donkey cow goat pig hen duck mouse rat spider ferret
    """
)
PEOPLE: Final = _phrases(
    """
    sister | brother | mother | father | mom | dad | mum | wife | husband | son | daughter | friend |
    best friend | boss | teacher | neighbour | neighbor | uncle | aunt | cousin | doctor | dentist | colleague |
    roommate | grandmother | grandfather | girlfriend | boyfriend | partner | manager | coach | niece | nephew |
    grandma | grandpa | landlord | baby
    """
)
NAMED_THINGS: Final = _phrases(
    """
    boat | car | robot | teddy bear | guitar | band | school | company | street | village | team | project |
    bike | plant | truck | ship | doll | computer | laptop | hotel | book | town | spaceship | house | bicycle |
    toy | dragon | startup | bakery | farm | country
    """
)
FAVOURITES: Final = _phrases(
    """
    colour | food | drink | song | book | movie | film | band | city | animal | sport | fruit | number | season |
    day | game | team | word | dish | country | teacher | flower | place | ice cream | cake | singer | cheese |
    month | hobby | subject | vegetable | actor | dessert
    """
)
NUMBERS: Final = _phrases(
    """
    lucky number | room number | phone number | locker number | seat number | house number | account number |
    flight number | ticket number | order number | number | shoe size | gate | table number | bus number | age |
    height | customer number | zip code | score
    """
)
CODES: Final = _phrases(
    """
    password | secret word | door code | wifi password | code word | code | pin | pin code | secret code |
    locker code | secret | magic word | passphrase | key | gate code | alarm code | codeword | access code |
    bike lock code | safe combination | username | login
    """
)
OWN_THINGS: Final = _phrases(
    """
    job | hobby | nickname | last name | first name | hometown | star sign | middle name | surname | home town |
    dream | goal | car | email | profession | language | nationality | instrument | plan | address | idea | size |
    team
    """
)
EVENTS: Final = words(
    """
    flight train meeting appointment birthday exam interview party bus lesson dinner wedding concert
    """
)
LOSABLE_THINGS: Final = words(
    """
    keys glasses passport wallet bike umbrella phone laptop bag book shoes car coat ticket treasure ring
    """
)

NAME_TELLS: Final = _phrases(
    """
    my {k} is called {v} | my {k} is called {v} | my {k}'s name is {v} | my {k}'s name is {v} |
    i have a {k} named {v} | i have a {k} called {v} | i have a {a} {k} called {v} | i have a {a} {k} named {v} |
    the name of my {k} is {v} | {v} is my {k} | {v} is the name of my {k} | my {k} is named {v} |
    i named my {k} {v} | i called my {k} {v} | we call our {k} {v} | our {k} is called {v} |
    i got a new {k}, its name is {v} | i got a {k} and named it {v} | i have a {k}. its name is {v} |
    i have a {k}. his name is {v} | i have a {k}, her name is {v} | i have a {k} and her name is {v} |
    this is my {k} {v} | my {k} {v} is very {a} | my {a} {k} is called {v} | my {k} goes by the name of {v} |
    my {k} is {v} | my {k} has the name {v} | i own a {k} called {v} | we have a {k} named {v} |
    there is a {k} at home called {v} | i just bought a {k} and i call it {v}
    """
)
NAME_ASKS: Final = _phrases(
    """
    what is my {k} called | what is my {k} called | what's my {k} called | what's my {k}'s name |
    what is my {k}'s name | what is the name of my {k} | what's the name of my {k} |
    do you remember the name of my {k} | do you remember my {k}'s name | do you know the name of my {k} |
    who is my {k} | how is my {k} called | how did i name my {k} | what did i name my {k} |
    what did i call my {k} | tell me the name of my {k} | tell me my {k}'s name | can you tell me my {k}'s name |
    can you tell me what my {k} is called | my {k}'s name | remind me what my {k} is called |
    do you know my {k}'s name | do you know what my {k} is called | name of my {k} | which name does my {k} have |
    what was my {k} called again | what was my {k}'s name | what was the name of my {k} | what do i call my {k} |
    what is my {k} named | i forgot the name of my {k} | i told you about my {k}, what is the name |
    i have a {k}. what is it called | is my {k} called {w} | what name did i give my {k} | say the name of my {k}
    """
)
IS_TELLS: Final = _phrases(
    """
    my {k} is {v} | my {k} is {v} | my {k} is {v} | {v} is my {k} | i think my {k} is {v} | my {k}: {v} |
    i have a {k}, it is {v} | my {k} will always be {v} | as for my {k}, it is {v} | set my {k} to {v} |
    my {k} = {v} | you should know that my {k} is {v}
    """
)
IS_ASKS: Final = _phrases(
    """
    what is my {k} | what is my {k} | what's my {k} | do you remember my {k} | do you remember what my {k} is |
    do you know my {k} | which is my {k} | tell me my {k} | can you tell me my {k} |
    could you tell me what my {k} is | what was my {k} | remind me of my {k} | remind me what my {k} is |
    i forgot my {k} | my {k} | what did i say my {k} was | what did i tell you about my {k} | is my {k} {w} |
    give me my {k}
    """
)
LIKE_ASKS: Final = _phrases(
    """
    which {x} do i like best | which {x} do i like most | what {x} do i like best | what {x} do i like the most |
    what {x} do i prefer | which {x} is my favourite
    """
)
THE_TELLS: Final = _phrases(
    """
    the {k} is {v} | the {k} is {v} | my {k} is {v} | {v} is the {k} | the {k}: {v} | the {k} will be {v} |
    our {k} is {v} | use {v} as the {k} | {k} is {v} | {k}: {v}
    """
)
THE_ASKS: Final = _phrases(
    """
    what is the {k} | what is the {k} | what is my {k} | what's the {k} | what was the {k} | tell me the {k} |
    do you remember the {k} | do you still know the {k} | do you know the {k} | can you tell me the {k} |
    remind me of the {k} | i forgot the {k} | give me the {k} | the {k} | say the {k} |
    what did i say the {k} was | is the {k} {w}
    """
)
SELF_TELLS: Final = _phrases(
    """
    my name is {v} | my name is {v} | i'm {v} | i am {v} | call me {v} | you can call me {v} | hi, i'm {v} |
    hello, i am {v} | hi, my name is {v} | hello, my name is {v} | this is {v} | {v} is my name |
    people call me {v} | i am called {v} | my friends call me {v} | the name is {v} | hey, {v} here
    """
)
SELF_ASKS: Final = _phrases(
    """
    what is my name | what is my name | what's my name | who am i | what am i called | do you know who i am |
    do you remember my name | do you know my name | tell me my name | how am i called | say my name |
    can you tell me my name | what did i say my name was | what was my name | do you remember me | my name |
    is my name {w} | remind me of my name | do you remember who i am | i forgot my name
    """
)
LIVE_TELLS: Final = _phrases(
    """
    i live in {v} | i live in {v} | i am living in {v} | i am living in {v} now | my home is in {v} |
    i moved to {v} | i just moved to {v} | we live in {v} | my house is in {v} | i live in the city of {v} |
    i currently live in {v} | the city i live in is {v}
    """
)
LIVE_ASKS: Final = _phrases(
    """
    where do i live | where do i live | which city do i live in | what city do i live in |
    in which city do i live | where is my home | do you remember where i live | do you know where i live |
    tell me where i live | where am i living | what town do i live in | can you tell me where i live |
    where did i say i live | remind me where i live | do i live in {w}
    """
)
KNOW_ASKS: Final = _phrases(
    """
    what do you know about me | what do you remember | tell me everything you know about me |
    what did i tell you | what have i told you | list what you know about me | what do you know |
    tell me all you remember
    """
)
STORY_ASKS: Final = _phrases(
    """
    tell me a story about {t} | tell me a story about {t} | please tell me a story about {t} |
    tell a story about {t} | can you tell me a story about {t} | i want a story about {t} |
    write a story about {t} | make up a story about {t} | a story about {t} please
    """
)

TELL_LEADS: Final = _phrases(
    """
    by the way, | just so you know, | please remember: | remember that | please remember that | remember this: |
    also, | and | oh, | listen, | note that | so, | well, | i want you to know that | don't forget: | hi! |
    hello. | ok, | let me tell you: | fyi, | you know, | here is a fact:
    """
)
ASK_LEADS: Final = _phrases(
    """
    so, | hey, | now | quick question: | tell me, | by the way, | ok, | please tell me: | and | so | hello, |
    now tell me: | one more thing: | i have a question. | thanks. | hm, | remember what i told you?
    """
)
FIX_LEADS: Final = _phrases(
    """
    actually, | actually | no, | sorry, | i was wrong, | correction: | wait, | i made a mistake, | oh no,
    """
)

SMALL_TALK: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        "Hello! How can I help you?",
        _phrases(
            """
            hello | hi | hi there | hey | good morning | good evening | good afternoon | hello there |
            greetings | hello again | hey you | good day | hiya | yo
            """
        ),
    ),
    (
        "I am fine, thank you. How are you?",
        _phrases(
            """
            how are you | how are you today | how are you doing | how do you do | how is it going |
            how do you feel | are you ok | what's up | how was your day | are you well
            """
        ),
    ),
    (
        "You are welcome!",
        _phrases(
            """
            thanks | thank you | thank you very much | thanks a lot | many thanks | thx | thank you so much |
            cheers | that was helpful | great, thanks | good job | well done
            """
        ),
    ),
    (
        "I can remember what you tell me, count, and tell stories.",
        _phrases(
            """
            what can you do | help | can you help me | what are you good at | how can you help me |
            what do you do | i need help
            """
        ),
    ),
    (
        "I am Berth Tiny, a very small language model.",
        _phrases(
            """
            who are you | what are you | what is your name | what's your name | are you a robot |
            tell me about yourself | are you an ai | who made you | are you human | introduce yourself
            """
        ),
    ),
    (
        "Okay.",
        _phrases(
            """
            ok | okay | alright | fine | sure | yes | no | good | right | i understand | cool | great | nice |
            wow | hm | really | of course | maybe | perfect | exactly | oh | let me think | wait a moment |
            one moment | never mind | well | all right | correct | that is right | awesome
            """
        ),
    ),
    (
        "I see. Tell me more.",
        _phrases(
            """
            that is interesting | i went to the park yesterday | it is raining | it is cold outside |
            i had a long day | i watched a movie | we went swimming | let's talk | i want to talk |
            i was thinking | it was a long week | today was busy | i need to go shopping | i am cooking dinner |
            i should sleep more | i read a lot | i have to work tomorrow | nothing much |
            the weather is nice today | it is a nice day | i am learning to cook | i met an old friend |
            i cleaned the house | the sun is shining | let us talk about something else | interesting
            """
        ),
    ),
    (
        "I am glad to hear that.",
        _phrases(
            """
            i am happy | i feel good | i am fine | i am fine too | i'm good | i am well, thanks |
            i had a great day | life is good | i am so excited | i'm happy today | i am doing well |
            i feel great
            """
        ),
    ),
    (
        "I am sorry to hear that.",
        _phrases(
            """
            i am tired | i am sad | i am a bit tired today | i feel bad | i am hungry | i'm bored | i am sick |
            i had a bad day | i am not well | i'm a little tired | i am very tired | i am stressed |
            i feel lonely | my head hurts
            """
        ),
    ),
    (
        "I am a very small model, so I do not know that.",
        _phrases(
            """
            why is the sky blue | what time is it | what is the time | what day is it | how does a car work |
            what is the weather like | who won the game | how far is the moon | what is two plus two |
            what is 2 + 2 | why do cats purr | can you write code | what is love | where are you |
            how old are you | can you sing | can you dance | do you like music | what is the meaning of life |
            who is the president | how do i bake bread | is it going to rain | what should i eat |
            what happened today | will it snow tomorrow | do you sleep | what do you think |
            how many people are there | why | how | what | do you speak french | where is the station |
            can you fly | what is your favourite colour | do you have a cat | are you happy |
            how big is the sun | who invented the phone | when did the war end
            """
        ),
    ),
    (
        "Goodbye! It was nice talking to you.",
        _phrases(
            """
            bye | goodbye | see you | see you later | good night | talk to you later | bye bye | until tomorrow
            """
        ),
    ),
    (
        "Why did the byte cross the bus? To get to the other side.",
        _phrases(
            """
            tell me a joke | make me laugh | do you know a joke | say something funny | another joke |
            can you tell me a joke | a joke please | joke
            """
        ),
    ),
    (
        "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday.",
        _phrases(
            """
            say the days of the week | name the days of the week | what are the days of the week |
            list the days of the week | days of the week
            """
        ),
    ),
    (
        "January, February, March, April, May, June, July, August, September, October, November, December.",
        _phrases(
            """
            name the months | what are the months of the year | list the months | say the months of the year
            """
        ),
    ),
    (
        "a b c d e f g h i j k l m n o p q r s t u v w x y z.",
        _phrases(
            """
            say the alphabet | tell me the alphabet | recite the alphabet | what is the alphabet
            """
        ),
    ),
)
"""An answer, and what it answers."""
