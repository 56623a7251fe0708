from hotswap.common.pluralize import counted, times


def test_one_is_not_written_as_many() -> None:
    assert counted(1, "device") == "1 device"
    assert counted(1, "image is", "images are") == "1 image is"


def test_none_and_many_are_plural_with_their_thousands_apart() -> None:
    assert counted(0, "device") == "0 devices"
    assert counted(12000, "image is", "images are") == "12,000 images are"


def test_once_and_twice_have_words_of_their_own() -> None:
    assert [times(count) for count in (0, 1, 2, 3)] == [
        *("0 times", "once", "twice", "3 times")
    ]
