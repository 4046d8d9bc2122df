"""Reads the word lists that settings name by file."""

from .generation_settings import GenerationSettings


def read_word_files(settings: GenerationSettings) -> GenerationSettings:
    """The settings with the words of `bad_words_file` in `bad_words`, so that nothing has to read the file again.

    Raises:
        UserError: the file cannot be read.
    """
    if settings.bad_words_file is None:
        return settings
    return settings.but(bad_words=settings.banned(), bad_words_file=None)
