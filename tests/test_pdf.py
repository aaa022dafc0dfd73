"""The printed book: what is prepared for paper, and what is said where nothing can print."""

import pdf


def test_everything_is_open_on_paper_and_no_script_is_left():
    page = '<body data-x="1"><details><summary>Hint</summary>a</details><details class="h" open>b</details>'
    page += '<img src="a.webp" loading="lazy">'
    page += "<script>f('<details>')</script></body>"
    done = pdf.for_paper(page)
    assert done.count("<details") == done.count("open") == 2 and "<script" not in done and "lazy" not in done
    assert done.startswith('<body class="fl-book" data-x="1">')


def test_without_a_browser_the_message_says_what_is_needed(monkeypatch, capsys):
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    assert pdf.main() == 1
    assert "a Chromium is needed" in capsys.readouterr().err
