"""The web page in a real Chromium, doing what a person does. The service is real, its models are fake."""

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, FilePayload, Locator, Page, expect, sync_playwright

from api.cli_serve import service_app
from api.config import ServiceConfig
from api.keys import Role
from rag.settings import load_settings
from tests.api_fakes import ABSTAIN
from tests.web_fakes import HOSTILE_HTML, INVENTED, PageService, new_key, page_service, serving, set_lines

pytestmark = pytest.mark.browser

CHROMIUM = Path(os.environ.get("VRAAGBAAK_CHROMIUM", "/usr/bin/chromium"))
STATIC = Path(__file__).parents[1] / "api" / "static"
WAIT_MS = 30_000
NETWORK = "Wie opent een warmtenet in de wijk?"
SENTENCE = "De wethouder opent een warmtenet in de wijk."
WARM = "samples/nl/warmte.txt"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        reason = f"there is no Chromium at {CHROMIUM}; apt-get install chromium, or set VRAAGBAAK_CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-background-networking", "--disable-gpu"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageService]:
    """For tests that only ask and read."""
    with page_service(tmp_path_factory.mktemp("shared")) as service:
        yield service


@pytest.fixture
def own(tmp_path: Path) -> Iterator[PageService]:
    """For tests that change what is there."""
    with page_service(tmp_path) as service:
        yield service


class Visit:
    """A browser context, with all that went wrong in it."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.errors: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: object) -> None:
        text = str(getattr(message, "text", message))
        if getattr(message, "type", "") == "error" and "Failed to load resource" not in text:
            self.errors.append(text)


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """A Dutch visitor on a wide, light screen; whatever script or policy error the page meets fails the test."""
    expect.set_options(timeout=WAIT_MS)
    context = chromium.new_context(locale="nl-NL", viewport={"width": 1280, "height": 860})
    made = Visit(context)
    yield made
    context.close()
    assert made.errors == []


def ask(page: Page, question: str) -> None:
    page.get_by_role("textbox", name=re.compile("Uw vraag|Your question")).fill(question)
    page.keyboard.press("Enter")
    expect(page.locator("#asked")).to_have_text(question)
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")


def lit(page: Page) -> str:
    """The part of the answer that lights up."""
    return "".join(page.locator(".claim.lit").all_text_contents())


def marked(page: Page) -> str:
    """The highlighted text of the document, as it is there."""
    return page.locator("#quoted").text_content() or ""


def go_to(page: Page, name: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=name).click()


def row(page: Page, title: str) -> Locator:
    return page.locator("#documents li").filter(has=page.get_by_role("link", name=title, exact=True))


def upload_of(page: Page, name: str) -> Locator:
    return page.locator("#uploads li").filter(has=page.get_by_text(name, exact=True))


# First start


def test_first_start_has_samples_and_three_examples_a_language(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(shared.url)
    expect(page).to_have_title("Vragen · Vraagbaak")
    expect(page.get_by_role("heading", level=1)).to_have_text("Wat wilt u weten?")
    expect(page.locator("#examples a[lang=nl]")).to_have_count(3)
    expect(page.locator("#examples a[lang=en]")).to_have_count(3)
    expect(page.get_by_role("textbox", name="Uw vraag")).to_be_focused()
    page.get_by_role("link", name="Hoe lang is de fietsbrug?").click()
    expect(page.locator(".answer-text")).to_contain_text("De fietsbrug is twee kilometer lang.")


@pytest.mark.parametrize(
    ("question", "answer", "language"),
    [(NETWORK, SENTENCE, "nl"), ("When does the harbour open?", "The harbour opens in spring.", "en")],
)
def test_asks_in_both_languages(
    shared: PageService, visit: Visit, question: str, answer: str, language: str
) -> None:
    page = visit.page
    page.goto(shared.url)
    ask(page, question)
    text = page.locator(".answer-text")
    expect(text).to_contain_text(answer)
    expect(text).to_have_attribute("lang", language)
    expect(page.locator(".confidence")).to_contain_text("Waarschijnlijk juist")
    expect(page.locator("#announcer")).to_contain_text(answer)
    expect(page.locator("#examples")).to_be_hidden()


def test_enter_asks_and_shift_enter_breaks_the_line(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(shared.url)
    box = page.get_by_role("textbox", name="Uw vraag")
    box.press_sequentially("Wie opent")
    height = box.evaluate("node => node.offsetHeight")
    page.keyboard.press("Shift+Enter")
    box.press_sequentially("een warmtenet?")
    assert box.input_value() == "Wie opent\neen warmtenet?"
    assert box.evaluate("node => node.offsetHeight") > height
    expect(page.locator("#answer")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(page.locator(".answer-text")).to_contain_text(SENTENCE)


# While it is written


def test_streams_and_escape_stops_the_reader(own: PageService, visit: Visit) -> None:
    page = visit.page
    own.reader.held.set()
    page.goto(own.url)
    page.get_by_role("textbox", name="Uw vraag").fill(NETWORK)
    page.keyboard.press("Enter")
    expect(page.locator("#written")).to_have_text("De")
    expect(page.locator("#stage")).to_have_text("Het antwoord wordt geschreven…")
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#answer")).to_contain_text("U hebt het antwoord gestopt")
    assert own.reader.stopped.acquire(timeout=30), "the service goes on writing"
    own.reader.held.clear()
    page.get_by_role("button", name="Vraag opnieuw").click()
    expect(page.locator(".answer-text")).to_contain_text(SENTENCE)
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()


def test_a_failure_says_why_and_asks_again(shared: PageService, visit: Visit) -> None:
    page = visit.page
    problem = {
        "type": "urn:vraagbaak:problem:overloaded",
        "title": "Too many requests at once",
        "status": 503,
        "detail": "8 questions are waiting already",
    }
    page.route(
        "**/v1/ask",
        lambda route: route.fulfill(
            status=503,
            headers={"Retry-After": "7", "Content-Type": "application/problem+json"},
            body=json.dumps(problem),
        ),
        times=1,
    )
    page.goto(shared.url)
    ask(page, NETWORK)
    expect(page.locator(".problem")).to_contain_text(
        "Te veel vragen tegelijk: 8 questions are waiting already."
    )
    expect(page.locator(".problem")).to_contain_text("over 7 s")
    page.get_by_role("button", name="Vraag opnieuw").click()
    expect(page.locator(".answer-text")).to_contain_text(SENTENCE)


def test_a_stream_that_breaks_off_is_no_answer(shared: PageService, visit: Visit) -> None:
    page = visit.page
    body = 'event: token\ndata: {"start": 0, "text": "De half"}\n\n'
    headers = {"Content-Type": "text/event-stream"}
    page.route("**/v1/ask", lambda route: route.fulfill(status=200, headers=headers, body=body))
    page.goto(shared.url)
    ask(page, NETWORK)
    expect(page.locator(".problem")).to_contain_text("De verbinding viel weg")


# Citations


def test_a_citation_opens_the_document_at_exactly_the_quote(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(shared.url)
    ask(page, NETWORK)
    chip = page.locator(".chip").first
    chip.hover()
    expect(page.get_by_role("tooltip")).to_contain_text(SENTENCE)
    assert lit(page) == SENTENCE
    with page.expect_response("**/documents/**") as response:
        chip.click()
    document = response.value.json()
    expect(page.get_by_role("complementary")).to_be_visible()
    quote = page.locator(".citation q").first.text_content()
    assert marked(page) == quote == SENTENCE
    assert marked(page) in document["text"]
    assert lit(page) == SENTENCE
    expect(page.locator("#quoted")).to_be_in_viewport()
    expect(page.locator("#source-title")).to_be_focused()
    page.keyboard.press("Escape")  # the quote that is still shown, if it is
    page.keyboard.press("Escape")
    expect(page.get_by_role("complementary")).to_be_hidden()
    expect(chip).to_be_focused()


def test_offsets_are_code_points(shared: PageService, visit: Visit) -> None:
    """Three characters before the quote take two UTF-16 units each."""
    page = visit.page
    page.goto(shared.url)
    ask(page, "Hoeveel miljoen euro kost het warmtenet?")
    expect(page.locator(".answer-text")).to_contain_text("Het warmtenet kost twaalf miljoen euro.")
    page.locator(".citation").first.click()
    expect(page.locator("#quoted")).to_contain_text("Het warmtenet kost twaalf miljoen euro.")
    parameters = dict(re.findall(r"[?&](\w)=([^&]*)", page.evaluate("location.hash")))
    text = shared.text(WARM)
    assert marked(page) == text[int(parameters["s"]) : int(parameters["e"])]
    assert (page.locator("#source-text").text_content() or "") == text


def test_keyboard_alone_reaches_a_citation_and_comes_back(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(shared.url)
    ask(page, NETWORK)
    chip = page.locator(".chip").first
    for _ in range(12):
        page.keyboard.press("Tab")
        if chip.evaluate("node => node === document.activeElement"):
            break
    expect(chip).to_be_focused()
    expect(page.get_by_role("tooltip")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#quoted")).to_have_text(SENTENCE)
    expect(page.locator("#source-title")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Sluit het document")).to_be_focused()
    page.keyboard.press("Enter")
    expect(chip).to_be_focused()


def test_on_a_phone_the_document_is_a_sheet(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(shared.url)
    ask(page, NETWORK)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.locator(".citation").first.click()
    expect(page.locator("#quoted")).to_be_in_viewport()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.locator("main").evaluate("node => node.inert")
    page.get_by_role("button", name="Sluit het document").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert not page.locator("main").evaluate("node => node.inert")
    for view in ("Documenten", "Evaluatie"):
        go_to(page, view)
        expect(page.get_by_role("heading", level=1)).to_have_text(view)
        assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_a_sentence_without_support_is_marked_in_words(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(shared.url)
    ask(page, f"{NETWORK} {INVENTED}")
    expect(page.locator(".unsupported").first).to_have_text("Olifanten zingen zelden opera.")
    expect(page.locator(".unsupported-note")).to_contain_text("geen bron")
    expect(page.locator(".chip")).to_have_count(1)


def test_an_abstention_shows_the_nearest_passages(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(shared.url)
    ask(page, f"{ABSTAIN} warmtenet wijk")
    expect(page.locator(".abstained")).to_contain_text("Dat staat niet in de documenten.")
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.locator(".passage").first).to_be_visible()
    expect(page.locator(".passages summary")).to_contain_text("Dichtstbijzijnde passages")


def test_passages_are_folded_away_with_their_scores(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(shared.url)
    ask(page, NETWORK)
    expect(page.locator(".passage").first).to_be_hidden()
    page.locator(".passages summary").click()
    expect(page.locator(".passage .scores").first).to_contain_text("op woorden nr. 1")
    page.locator(".passage a").first.click()
    expect(page.locator("#quoted")).to_contain_text(SENTENCE)


# Links, history, copying


def test_a_question_in_the_address_is_asked_and_a_citation_opened(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(shared.url)
    ask(page, NETWORK)
    page.locator(".chip").first.click()
    expect(page.locator("#quoted")).to_have_text(SENTENCE)
    address = page.url
    other = visit.context.new_page()
    other.goto(address)
    expect(other.locator(".answer-text")).to_contain_text(SENTENCE)
    expect(other.locator("#quoted")).to_have_text(SENTENCE)
    other.goto(f"{shared.url}/#/source?c=default&d={WARM}&s=3&e=10")
    other.reload()
    expect(other.locator("#quoted")).to_have_text(shared.text(WARM)[3:10])


def test_history_and_the_back_button_bring_answers_back_without_asking(
    shared: PageService, visit: Visit
) -> None:
    page = visit.page
    page.goto(shared.url)
    ask(page, NETWORK)
    ask(page, "Hoe lang is de fietsbrug?")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/ask") else None)
    page.go_back()
    expect(page.locator("#asked")).to_have_text(NETWORK)
    expect(page.locator(".answer-text")).to_contain_text(SENTENCE)
    page.locator("#history").get_by_role("link", name="Hoe lang is de fietsbrug?").click()
    expect(page.locator(".answer-text")).to_contain_text("twee kilometer")
    assert asked == []
    page.reload()
    expect(page.locator("#history a")).to_have_count(2)
    page.get_by_role("button", name="Wis deze lijst").click()
    expect(page.locator("#history")).to_be_hidden()


def test_copies_markdown_with_citations_and_shows_json(shared: PageService, visit: Visit) -> None:
    page = visit.page
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(shared.url)
    ask(page, f"{NETWORK} {INVENTED}")
    page.get_by_role("button", name="Kopieer met bronnen").click()
    expect(page.locator("#announcer")).to_have_text("Gekopieerd")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == (
        f"**{NETWORK} {INVENTED}**\n\n{SENTENCE} [1] Olifanten zingen zelden opera. (geen bron)\n\n"
        f"Bronnen:\n\n- [1] Warmte: “{SENTENCE}” ({WARM})\n"
    )
    page.get_by_role("button", name="JSON").click()
    shown = json.loads(page.locator("#text-dialog-text").input_value())
    assert shown["citations"][0]["quote"] == SENTENCE
    page.keyboard.press("Escape")
    expect(page.locator("#text-dialog")).to_be_hidden()


# Documents


def test_uploads_a_good_and_a_broken_file(own: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(own.url)
    go_to(page, "Documenten")
    expect(page.locator("#documents li")).to_have_count(3)
    broken: FilePayload = {"name": "kapot.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4 kapot"}
    good: FilePayload = {"name": "molen.txt", "mimeType": "text/plain", "buffer": b"De molen maalt graan."}
    page.locator("#files").set_input_files([broken, good])
    expect(upload_of(page, "molen.txt")).to_contain_text("Toegevoegd")
    failed = upload_of(page, "kapot.pdf")
    expect(failed).to_contain_text("Niet toegevoegd")
    expect(failed).to_contain_text("Het bestand is beschadigd")
    expect(page.locator("#documents li")).to_have_count(4)
    assert "molen.txt" in own.documents()
    go_to(page, "Vragen")
    ask(page, "Wat maalt de molen?")
    expect(page.locator(".answer-text")).to_contain_text("De molen maalt graan")


def test_dropping_a_file_uploads_it(own: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(f"{own.url}/#/documents")
    expect(page.locator("#documents li")).to_have_count(3)
    transfer = page.evaluate_handle(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(["De sluis gaat open."], "sluis.txt", {type: "text/plain"}));
            return transfer;
        }"""
    )
    page.dispatch_event("#upload", "dragenter", {"dataTransfer": transfer})
    expect(page.locator("#upload")).to_have_class(re.compile("over"))
    page.dispatch_event("#upload", "drop", {"dataTransfer": transfer})
    expect(upload_of(page, "sluis.txt")).to_contain_text("Toegevoegd")
    expect(page.locator("#upload")).not_to_have_class(re.compile("over"))


def test_deletes_after_asking(own: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(f"{own.url}/#/documents")
    row(page, "Warmte").get_by_role("button", name="Verwijder Warmte").click()
    expect(page.get_by_role("button", name="Annuleer")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#confirm")).to_be_hidden()
    assert WARM in own.documents()
    row(page, "Warmte").get_by_role("button", name="Verwijder Warmte").click()
    page.locator("#confirm").get_by_role("button", name="Verwijder").click()
    expect(page.locator("#documents li")).to_have_count(2)
    expect(page.locator("#announcer")).to_have_text("“Warmte” is verwijderd.")
    assert WARM not in own.documents()


def test_searches_the_list_and_opens_a_document(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(f"{shared.url}/#/documents")
    page.get_by_role("searchbox", name="Zoek op titel of bestandsnaam").fill("harb")
    expect(page.locator("#documents li")).to_have_count(1)
    page.get_by_role("link", name="Harbour").click()
    expect(page.locator("#source-text")).to_contain_text("ninety ships")
    page.get_by_role("searchbox").fill("olifant")
    expect(page.locator("#documents-none")).to_contain_text("“olifant”")


def test_makes_a_collection_switches_and_deletes_it(own: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(f"{own.url}/#/documents")
    page.get_by_role("button", name="Nieuwe collectie").click()
    page.get_by_label("Naam", exact=True).fill("Met Hoofdletters")
    page.keyboard.press("Enter")
    expect(page.locator("#collection-name-error")).to_be_visible()
    page.get_by_label("Naam", exact=True).fill("tweede")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Collectie", exact=True)).to_have_value("tweede")
    expect(page.locator("#documents-none")).to_contain_text("nog geen documenten")
    page.get_by_label("Collectie", exact=True).select_option("default")
    expect(page.locator("#documents li")).to_have_count(3)
    page.get_by_label("Collectie", exact=True).select_option("tweede")
    page.get_by_role("button", name="Verwijder collectie").click()
    page.locator("#confirm").get_by_role("button", name="Verwijder").click()
    expect(page.get_by_label("Collectie", exact=True)).to_have_value("default")


# Language, keys


def test_switches_language_and_keeps_the_answer(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(shared.url)
    ask(page, NETWORK)
    page.get_by_role("button", name="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator(".confidence")).to_contain_text("Probably right")
    expect(page.locator(".answer-text")).to_contain_text(SENTENCE)
    page.reload()
    expect(page.get_by_role("button", name="Nederlands")).to_be_visible()


def test_follows_the_browsers_language(shared: PageService, chromium: Browser) -> None:
    context = chromium.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(shared.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("What would you like to know?")
    context.close()


def test_both_languages_have_the_same_texts() -> None:
    keys = {}
    for language in ("nl", "en"):
        text = (STATIC / "js" / f"{language}.js").read_text(encoding="utf-8")
        found = re.findall(r'^  "([\w.-]+)": "(.*)",$', text, re.MULTILINE)
        keys[language] = {
            key: sorted(set(re.findall(r"\{\w+\}", value)))
            for key, value in found
            if not key.startswith("problem.")
        }
    assert keys["nl"] == keys["en"]


def test_signs_in_with_a_key_and_out(tmp_path: Path, visit: Visit) -> None:
    page = visit.page
    with page_service(tmp_path, keys=True) as service:
        key = new_key(tmp_path)
        page.goto(f"{service.url}/#/ask?q={NETWORK}")
        expect(page.get_by_role("heading", level=1)).to_have_text("Inloggen")
        page.get_by_label("API-sleutel").fill("vb_00000000_onzin")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("niet bekend")
        page.get_by_label("API-sleutel").fill(key)
        page.keyboard.press("Enter")
        expect(page.locator(".answer-text")).to_contain_text(SENTENCE)
        assert page.evaluate("Object.values(localStorage)").count(key) == 0
        page.get_by_role("button", name="Uitloggen").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Inloggen")
        expect(page.locator("#answer")).to_be_hidden()
        assert page.evaluate("JSON.stringify(sessionStorage)").count(key) == 0
        assert SENTENCE not in page.content()


def test_a_key_that_reads_sees_nothing_to_change(tmp_path: Path, visit: Visit) -> None:
    page = visit.page
    with page_service(tmp_path, keys=True) as service:
        page.goto(f"{service.url}/#/documents")
        page.get_by_label("API-sleutel").fill(new_key(tmp_path, Role.READ))
        page.keyboard.press("Enter")
        expect(page.locator("#documents li")).to_have_count(3)
        expect(page.locator("#upload")).to_be_hidden()
        expect(page.locator("#documents button")).to_have_count(0)
        row(page, "Warmte").get_by_role("link").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download het origineel").click()
        assert Path(download.value.path()).read_text(encoding="utf-8").endswith("drie jaar.")


# Evaluation


def test_runs_an_evaluation_follows_it_opens_the_report_and_compares(own: PageService, visit: Visit) -> None:
    page = visit.page
    page.set_default_timeout(120_000)
    expect.set_options(timeout=120_000)
    page.goto(f"{own.url}/#/evaluations")
    expect(page.locator("#evaluation-set")).to_contain_text("samples (3 vragen)")
    page.get_by_role("button", name="Start", exact=True).click()
    first = page.locator(".run").last
    expect(first.get_by_role("link", name="Rapport")).to_be_visible()
    with visit.context.expect_page() as opened:
        first.get_by_role("link", name="Rapport").click()
    expect(opened.value.locator("body")).to_contain_text("samples")
    page.locator("#evaluation-file").set_input_files(
        {"name": "eigen.jsonl", "mimeType": "application/jsonl", "buffer": set_lines().encode()}
    )
    expect(page.locator("#evaluation-set")).to_contain_text("Uw bestand: eigen.jsonl")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator(".run").get_by_role("link", name="Rapport")).to_have_count(2)
    for box in page.get_by_role("checkbox", name="Vergelijk").all():
        box.check()
    page.get_by_role("button", name="Vergelijk de twee").click()
    expect(page.locator("#comparison table")).to_be_visible()
    expect(page.locator("#comparison")).to_contain_text("3 gedeelde vragen")


def test_a_wrong_set_says_which_line(shared: PageService, visit: Visit) -> None:
    page = visit.page
    page.goto(f"{shared.url}/#/evaluations")
    page.locator("#evaluation-file").set_input_files(
        {"name": "fout.jsonl", "mimeType": "application/jsonl", "buffer": b'{"id": "a"}\n'}
    )
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#evaluation-error")).to_contain_text("line 1")


# Safety


def test_a_hostile_document_and_question_stay_inert(own: PageService, visit: Visit) -> None:
    page = visit.page
    own.put(
        "default", {'<img src=x onerror="window.broken=4">': ("javascript:window.broken = 5", HOSTILE_HTML)}
    )
    page.goto(own.url)
    question = (
        "Waar staat het kasteel? <img src=x onerror='window.broken = 6'><script>window.broken = 7</script>"
    )
    ask(page, question)
    expect(page.locator(".answer-text")).to_contain_text("Het kasteel staat op een heuvel.")
    page.locator(".passages summary").click()
    page.locator(".chip").first.hover()
    page.locator(".chip").first.click()
    expect(page.locator("#source-text")).to_contain_text("<script>window.broken = 1</script>")
    go_to(page, "Documenten")
    expect(page.locator("#documents")).to_contain_text('<img src=x onerror="window.broken=4">')
    for root in ("main", "#source", "#quote"):
        assert page.locator(f"{root} :is(script, img, iframe, object, svg)").count() == 0
        assert page.locator(f"{root} a[href^=javascript]").count() == 0
    assert page.evaluate("window.broken") is None


def test_no_script_parses_html_or_code() -> None:
    parsing = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    for script in (STATIC / "js").glob("*.js"):
        assert not re.search(parsing, script.read_text(encoding="utf-8")), script.name
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", page)


def test_the_policy_has_no_hole(shared: PageService, visit: Visit) -> None:
    response = visit.page.goto(shared.url)
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy


def test_nothing_comes_from_elsewhere(shared: PageService, visit: Visit) -> None:
    page = visit.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(shared.url)
    ask(page, NETWORK)
    page.locator(".chip").first.click()
    expect(page.locator("#quoted")).to_be_visible()
    assert [url for url in asked if not url.startswith(shared.url)] == []


# The real models


@pytest.mark.model
def test_with_the_real_models_the_highlight_is_the_quote(home: Path, visit: Visit) -> None:
    page = visit.page
    expect.set_options(timeout=120_000)
    with serving(service_app(load_settings(), ServiceConfig(port=0, deadline_s=120))) as url:
        page.goto(url)
        expect(page.locator("#examples a")).to_have_count(6)
        page.locator("#examples a").first.click()
        expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
        expect(page.locator(".passage")).not_to_have_count(0)
        # Which of the two is the reader's business, and measured elsewhere.
        is_abstained = page.locator(".abstained").count() > 0
        link, quote = (".passage a", ".passage .text") if is_abstained else (".chip", ".citation q")
        page.locator(link).first.click()
        expect(page.locator("#quoted")).to_be_visible()
        assert marked(page) == page.locator(quote).first.text_content()


# Accessibility


def axe_violations(page: Page) -> list[str]:
    """Each violation of axe-core's rules, with the elements that it is about."""
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    page.add_script_tag(path=Path(spec.origin).parent / "axe.min.js")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {node['html'][:200]} ({node['failureSummary']})"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_axe_finds_nothing(shared: PageService, chromium: Browser, scheme: str, width: int) -> None:
    expect.set_options(timeout=WAIT_MS)
    context = chromium.new_context(
        locale="nl-NL",
        viewport={"width": width, "height": 860},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
        bypass_csp=True,
    )
    page = context.new_page()
    page.goto(shared.url)
    expect(page.locator("#examples a")).to_have_count(6)
    assert axe_violations(page) == []
    ask(page, f"{NETWORK} {INVENTED}")
    page.locator(".passages summary").click()
    assert axe_violations(page) == []
    page.locator(".citation").first.click()
    expect(page.locator("#quoted")).to_be_visible()
    assert axe_violations(page) == []
    page.goto(f"{shared.url}/#/documents")
    expect(page.locator("#documents li")).to_have_count(3)
    assert axe_violations(page) == []
    page.get_by_role("button", name="Nieuwe collectie").click()
    assert axe_violations(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Verwijder Warmte").first.click()
    expect(page.locator("#confirm")).to_be_visible()
    assert axe_violations(page) == []
    page.keyboard.press("Escape")
    page.goto(shared.url)
    ask(page, f"{ABSTAIN} warmtenet wijk")
    expect(page.locator(".abstained")).to_be_visible()
    assert axe_violations(page) == []
    page.goto(f"{shared.url}/#/evaluations")
    expect(page.locator("#evaluation-set")).to_contain_text("samples")
    assert axe_violations(page) == []
    context.close()


def test_axe_finds_nothing_while_signing_in(tmp_path: Path, chromium: Browser) -> None:
    context = chromium.new_context(locale="nl-NL", bypass_csp=True, reduced_motion="reduce")
    with page_service(tmp_path, keys=True) as service:
        page = context.new_page()
        page.goto(service.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("Inloggen")
        assert axe_violations(page) == []
        context.close()
