"""Which language a text is in, from its function words; character statistics where those don't decide.

A short question names things in the other language all the time ("What does the Belastingdienst do?"), which
is what misleads character n-grams. Function words are rarely borrowed, so they are counted first, and
lingua (Peter M. Stahl, Apache-2.0) settles what they leave open.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from corpus.document import DUTCH, ENGLISH, UNDETERMINED, Language

if TYPE_CHECKING:
    from lingua import LanguageDetector

_FUNCTION_WORDS = {
    "nl": """
        de het een en van ik te dat die in is zijn op met voor niet aan er om als dan maar hij zij ze
        wij we je jij jullie u uw mijn ons onze hun haar hem ook naar door over bij uit tot wordt
        worden werd werden wat wie waar wanneer waarom hoe hoeveel hoelang welk welke heeft hebben had
        heb kan kunnen kun kunt moet moeten mag mogen zal zullen zou zouden wil willen wilt ben bent
        was waren geen wel nog al of deze dit daar hier na zonder tegen tussen onder sinds tijdens
        volgens omdat zodat dus veel meer meest gaat gaan doet doe doen krijg krijgt krijgen komt
        komen staat staan iets iemand alle alles ander andere eigen zo toch want moest kon konden
        mocht hoort vanaf via per mij toen toe zich zelf heel nee ja werkt kost kosten betekent vindt
        maakt gebruikt heet vind maak geldt valt ligt begint duurt hoor waarvoor waarmee waarop
        waaruit hierbij daarbij hoeft hoef deed deden ging gingen kwam kwamen gaf gaven nam werkte
        bestaat
    """,
    "en": """
        the a an of and to in is are was were be been being i you he she it we they me him her us them
        my your his its our their this that these those what which who whom whose when where why how
        many much do does did done have has had can could may might must shall should will would not
        no yes on at by for from with without about against between into through during before after
        above below under over if or but because as until while than then so there here all any both
        each few more most other some such only own same too very just also per get gets need needs
        mean means work works cost costs pay pays make makes take takes use used using apply applies
        happen happens long far often according up out off anyone someone something anything there's
        what's who's it's don't doesn't can't isn't i'm old called
    """,
    "de": """
        der die das und ist nicht ein eine einen einem einer eines zu den dem des mit von für auf im
        am sich auch als bei wird werden wurde wie was wer wo wann warum welche welcher kann können
        ich sie er es wir ihr oder aus nach über durch um sind hat haben war waren nur noch aber dass
        daß wenn in an zum zur vom so mein unser kein keine muss müssen soll viel mehr man gibt kostet
        bis vor
    """,
    "fr": """
        le la les un une des de du et est sont dans en pour pas que qui quoi quel quelle quels où
        quand comment pourquoi combien il elle ils elles je tu nous vous ce cette ces sur avec par au
        aux ne se sa son ses plus ou mais être avoir a ont été fait peut faire leur y si comme d'un
        d'une c'est qu'est l'on
    """,
    "es": """
        el la los las un una unos de del y es son en para por que qué quién cuál cuándo cómo dónde
        cuánto no con se su sus al lo como más pero o este esta estos ser ha han está están hay fue si
        muy también sobre
    """,
    "it": """
        il lo la gli le un una di del della dei delle e è sono in per che chi cosa quale quando come
        dove perché quanto non con si su al alla da dal dalla più ma o questo questa essere ha hanno
        nel nella anche
    """,
    "pt": """
        o os as um uma de do da dos das e é são em para por que quem qual quando como onde quanto não
        com se seu sua no na nos nas ao mais mas ou este esta ser foi tem também pelo pela você
    """,
    "fy": """
        de it in en fan ik te dat dy yn is binne op mei foar net oan der om as dan mar hy sy wy jo
        jimme ús harren ek nei troch oer by út oant wurdt wurde wat wa wêr wannear wêrom hoe hoefolle
        hat hawwe hie kin kinne moat moatte sil soe gjin noch al of dizze dit hjir sûnder tsjin tusken
        ûnder ha wie wiene
    """,
    "af": """
        die het 'n en van ek te dat in is op met vir nie aan daar om as maar hy sy ons julle hulle my
        jou ook na deur oor by uit tot word wat wie waar wanneer waarom hoe hoeveel watter kan moet
        mag sal sou wil was geen nog al of hierdie dit hier sonder teen tussen onder kos werk
    """,
    "da": """
        og i det at en den til er som på de med han af for ikke der var mig sig men et har om vi min
        havde ham hun nu over da fra du ud sin dem os op man hans hvor eller hvad skal selv her alle
        vil blev kunne ind når være hvem hvordan hvorfor hvornår å av jeg ble
    """,
    "sv": """
        och i att det som en på är av för med den till inte har de om ett han men var jag sig från vi
        så kan man när år under också efter eller nu sin där vid mot ska skulle ut får finns vara hade
        alla vad vem hur varför vilken
    """,
    "pl": """
        i w nie na że się z do jest to jak co po dla od za o przez ale czy tak są był kto kiedy gdzie
        dlaczego ile tego jego oraz lub który która
    """,
}
_LEXICON: dict[str, tuple[Language, ...]] = {}
for _code, _listed in _FUNCTION_WORDS.items():
    for _function_word in dict.fromkeys(_listed.split()):
        _LEXICON[_function_word] = (*_LEXICON.get(_function_word, ()), _code)

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|['’]n\b")
_SAMPLE_CHARS = 1500
_SAMPLES = 4
# With fewer than one function word in eight words a text is a list, a table or code: prose has one in three.
_MIN_SHARE = 0.125
_MIN_CONFIDENCE = 0.6


def detect_language(text: str, among: Sequence[Language] = (), fallback: Language = UNDETERMINED) -> Language:
    """ "nl", "en", or `fallback` where it is neither or can't be told.

    With `among`, one of those is chosen even on slight evidence, and `fallback` only comes back where there
    is none (no letters). That is what a question wants; a document may well be in a third language.
    """
    words = [word.casefold().replace("’", "'") for word in _WORD.findall(_sample(text))]
    if not words:
        return fallback
    counts = Counter(code for word in words for code in _LEXICON.get(word, ()))
    if among:
        return _leader({code: counts[code] for code in among}) or _by_characters(text, among) or fallback
    best = _leader(counts)
    if best is not None and counts[best] >= _MIN_SHARE * len(words):
        return best if best in (DUTCH, ENGLISH) else fallback
    guess = _by_characters(text, ())
    return guess if guess in (DUTCH, ENGLISH) else fallback


def _sample(text: str) -> str:
    """All of a short text; equally spaced parts of a long one, so that a foreign preface doesn't decide."""
    if len(text) <= _SAMPLE_CHARS * _SAMPLES:
        return text
    step = (len(text) - _SAMPLE_CHARS) // (_SAMPLES - 1)
    return " ".join(text[start : start + _SAMPLE_CHARS] for start in range(0, step * _SAMPLES, step))


def _leader(counts: dict[Language, int]) -> Language | None:
    """The language with the highest count above 0. Dutch or English wins from others; else a tie is None."""
    highest = max(counts.values(), default=0)
    tied = [code for code, count in counts.items() if count == highest and highest]
    ours = [code for code in tied if code in (DUTCH, ENGLISH)]
    leaders = ours or tied
    return leaders[0] if len(leaders) == 1 else None


def _by_characters(text: str, among: Sequence[Language]) -> Language | None:
    values = _detector(tuple(among)).compute_language_confidence_values(_sample(text))
    if not values or values[0].value < (_MIN_CONFIDENCE if not among else 0.5):
        return None
    code: Language = values[0].language.iso_code_639_1.name.lower()
    return code


@cache
def _detector(among: tuple[Language, ...]) -> "LanguageDetector":
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = among or ("nl", "en", "de", "fr", "es", "it", "pt", "af", "da", "sv", "pl")
    languages = [getattr(IsoCode639_1, code.upper()) for code in codes]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*languages).with_low_accuracy_mode().build()
