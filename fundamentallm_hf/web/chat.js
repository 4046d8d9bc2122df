// Chats: lists of messages, each with a role and content. A chat that ends with a message of the assistant is answered by
// more of it, as settings/chat_messages.py has it.

const isReply = (message) => Boolean(message) && message.role === "assistant";
const startedReply = (messages) => (isReply(messages.at(-1)) ? messages.at(-1).content : "");
// The messages without the start of a reply.
const turnsOf = (messages) => (isReply(messages.at(-1)) ? messages.slice(0, -1) : messages);
const withReply = (messages, added) =>
  added ? [...turnsOf(messages), { role: "assistant", content: startedReply(messages) + added }] : messages;
const systemOf = (messages) => (messages.length && messages[0].role === "system" ? messages[0].content : "");
const sameChat = (one, other) =>
  Boolean(one) && Boolean(other) && one.length === other.length &&
  one.every(({ role, content }, index) => role === other[index].role && content === other[index].content);

// The chat with one more message: after the chat at hand, if it has this system message, otherwise of a new chat.
const nextTurn = (chat, message, system) => {
  let before = chat && systemOf(chat) === system ? chat : system ? [{ role: "system", content: system }] : [];
  if (before.length && before.at(-1).role === "user") before = before.slice(0, -1); // it was not answered
  return [...before, { role: "user", content: message }];
};

// A chat as a text to read.
const readable = (messages) => messages.map(({ role, content }) => `${role}: ${content}`).join("\n\n");

// The messages before a reply, the latest in sight, as turns_view.py shows them.
const showTurns = (messages) => {
  const turns = make("div", "turns");
  turns.setAttribute("role", "region");
  turns.setAttribute("aria-label", "The chat so far");
  turns.tabIndex = 0;
  const inside = make("div");
  for (const { role, content } of messages) {
    const turn = make("div", `turn ${role}`);
    turn.append(make("span", "role", role), make("p", "", content));
    inside.append(turn);
  }
  turns.append(inside);
  return turns;
};
