// Starts `stemflow lsp` for workflow files.
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = function () {
  const settings = vscode.workspace.getConfiguration("stemflow");
  const [command, ...args] = settings.get("command");
  const server = { command, args };
  const selector = [{ language: "yaml", scheme: "file", pattern: settings.get("files") }];
  client = new LanguageClient("stemflow", "stemflow", server, { documentSelector: selector });
  return client.start();
};

exports.deactivate = function () {
  return client === undefined ? undefined : client.stop();
};
