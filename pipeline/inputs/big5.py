"""Whether bytes that Big5 reads are Big5: other encodings of Chinese and of its neighbours decode as it too."""

import re

BIG5 = "cp950"  # as Windows writes it in Taiwan
LAST_COMMON, LEAST_COMMON = 0xC6, 0.75  # first byte of Big5's common letters, and their share in a text
FIRST_OTHER, SECOND_OTHER = 0xB0, 0xA1  # the least bytes of a letter in GBK, which has common ones there, and in EUC-KR
LEAST_LETTERS = 3  # of fewer nothing can be said
LATIN = re.compile("[A-Za-z]")


def is_chinese(text: str) -> bool:
    """Whether text that was read as Big5 is, and nothing else that decodes.

    Western words would show single letters of Chinese within them. Text in another encoding of Chinese would show
    letters that few people know; Big5 has those that most know first.
    """
    runs = list(re.finditer(r"[^\x00-\x7f]+", text))
    first = [letter.encode(BIG5)[0] for run in runs for letter in run[0]]
    if sum(byte <= LAST_COMMON for byte in first) < LEAST_COMMON * len(first):
        return False
    for run in runs:
        before, after = text[max(0, run.start() - 1) : run.start()], text[run.end() : run.end() + 1]
        in_word = LATIN.fullmatch(before) and (LATIN.fullmatch(after) or run[0].encode(BIG5)[1:].islower())
        if len(run[0]) > 1 or not run[0].isalpha() or not in_word:
            return True
    return False


def may_be_other(text: str) -> bool:
    """Whether text that was read as Big5 may as well be in GBK or EUC-KR: no letter of it has bytes that these lack.

    Of Big5's own texts few are so: the letters that people use most have others.
    """
    letters = [letter.encode(BIG5) for letter in {*text} if not letter.isascii()]
    return len(letters) >= LEAST_LETTERS and all(
        len(each) == 2 and each[0] >= FIRST_OTHER and each[1] >= SECOND_OTHER for each in letters
    )
