// Starts `fermata lsp` for OpenSIPS scripts and hands it to the editor.
const { workspace, window } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = async () => {
  const command = workspace.getConfiguration("fermata").get("path", "fermata");
  client = new LanguageClient("fermata", "Fermata", { command, args: ["lsp"] }, {
    documentSelector: [{ language: "opensips" }],
  });
  try {
    await client.start();
  } catch (error) {
    window.showErrorMessage(`${command} lsp does not start: ${error.message}. Set fermata.path to the program.`);
  }
};

exports.deactivate = () => client?.stop();
