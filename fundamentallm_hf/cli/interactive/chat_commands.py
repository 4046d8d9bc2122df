"""The commands of the prompt loop for chats: what is typed is a message, and the model's reply is added to the chat.

A chat is a line of texts in the tree of the session, so each reply can be gone back to, continued and written again.
"""

from typing import Any

from fundamentallm_hf.generation.tree_file import SavedTree
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.chat_messages import Messages, user_chat

from .session_files import SessionFile
from .session_output import SessionOutput
from .tree_commands import TreeCommands


class ChatCommands(TreeCommands):
    """The part of a session that holds chats.

    Args:
        output: receives all output.
        resumed: the texts of an earlier session.
        file: saves the texts after every change; None saves none.
        system: the system message of the next chat.
    """

    def __init__(
        self, output: SessionOutput, resumed: SavedTree | None, file: SessionFile | None, system: str | None = None
    ) -> None:
        super().__init__(output, resumed, file)
        self.chatting = False
        self.system = system
        self._anew = False

    def write(self, prompt: str, continued: bool = False, parent: int | None = None, **changes: Any) -> None:
        """Generate from a prompt: see `Session`."""
        raise NotImplementedError

    def take(self, typed: str | Messages) -> None:
        """Generate from what was given: a prompt, a message where a chat is going on, or a whole chat."""
        if not isinstance(typed, str):
            self.begin_chat()
            self._answer(typed, None)
        elif self.chatting:
            current = self.tree.current
            chat = None if current is None or self._anew else self.tree.chat(current.id)
            if chat is None or current is None:
                self._answer(user_chat(typed, self.system), None)
            elif chat[-1]["role"] == "user":  # a message without a reply
                self._answer([*chat[:-1], {"role": "user", "content": typed}], None)
            else:
                self._answer([*chat, {"role": "user", "content": typed}], current.id)
        else:
            self.write(typed)

    def _answer(self, messages: Messages, parent: int | None) -> None:
        from fundamentallm_hf.generation.chat import as_prompt

        self.write(as_prompt(messages, self.generator.tokenizer), parent=parent)
        self._anew = False

    def _moved(self) -> None:
        super()._moved()
        self._anew = False  # the next message belongs to the chat that was gone to

    def begin_chat(self, anew: bool = True) -> None:
        """Answer the next message as the first of a chat, or as the next one of the chat at hand.

        Raises:
            UserError: the model has no chat template.
        """
        from fundamentallm_hf.generation.chat import as_prompt

        as_prompt(user_chat("", self.system), self.generator.tokenizer)
        self.chatting, self._anew = True, anew

    def chat_status(self) -> list[str]:
        """A line about the chat, if one is going on."""
        if not self.chatting:
            return []
        return [f"Chat: on{'' if self.system is None else f', system message {self.system!r}'}"]

    # The commands.

    def do_chat(self, argument: str) -> None:
        if argument not in ("", "on", "off"):
            raise UserError(f"/chat takes on or off but got {argument!r}")
        if argument == "off":
            self.chatting = False
            self.output.done("What is typed is a prompt again")
            return
        self.begin_chat()
        self.output.done("A chat begins with the next message; /chat off ends it")

    def do_system(self, message: str) -> None:
        if message:
            self.system = None if message == "off" else message
            self._anew = True
        self.output.done("There is no system message" if self.system is None else f"System message: {self.system}")
